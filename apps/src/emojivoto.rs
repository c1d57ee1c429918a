//! emojivoto, compatible on the wire with image tag v11: ports, environment, paths, messages, failures.
//!
//! [`web`] answers browsers and calls [`emoji`] (which emoji there are) and [`voting`] (who is ahead) by gRPC; [`bot`]
//! votes. Voting for the doughnut always fails, which is what the documentation demonstrates. What is random upstream
//! can be made to repeat: `SEED` fixes the random numbers, `FAIL_EVERY` counts instead of rolling dice.

pub mod bot;
pub mod emoji;
mod metrics;
pub mod proto;
pub mod table;
pub mod voting;
pub mod web;

#[cfg(test)]
mod tests;
