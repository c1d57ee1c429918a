//! emojivoto, compatible on the wire with image tag v11: ports, environment, paths, messages, failures.
//!
//! [`web`] answers browsers and calls [`emoji`] (which emoji there are) and [`voting`] (who is ahead) by gRPC; [`bot`]
//! votes. Voting for the doughnut always fails, which is what the documentation demonstrates. What is random upstream
//! can be made to repeat: `SEED` fixes the random numbers, `FAIL_EVERY` counts instead of rolling dice.

pub mod bot;
mod delay;
pub mod emoji;
mod metrics;
pub mod proto;
pub mod table;
pub mod voting;
pub mod web;

#[cfg(test)]
mod tests;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator from a seed, or from the system when there is none.
fn generator(seed: Option<u64>) -> StdRng {
    seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64)
}
