//! How large each ReplicaSet of a Deployment shall be: pure arithmetic over what is.

use meshgate_store::Object;
use serde_json::Value;

use super::history::Sets;
use super::{DESIRED, MAXIMUM};
use crate::objects::{bool_at, int_at, str_at};

/// What a rolling update has to keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    desired: i64,
    /// Pods beyond `desired` at any time.
    surge: i64,
    /// Pods below `desired` that may be unavailable at any time.
    unavailable: i64,
}

impl Limits {
    /// From `spec.replicas` and `spec.strategy`. Percentages round up for surge, down for unavailable; both zero would
    /// stand still, so one may then be unavailable.
    pub(super) fn of(deployment: &Value) -> Self {
        let desired = int_at(deployment, "/spec/replicas");
        let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
        let rolls = str_at(deployment, "/spec/strategy/type") == "RollingUpdate";
        let surge = if rolls { resolve(&rolling["maxSurge"], desired, true) } else { 0 };
        let unavailable = if rolls { resolve(&rolling["maxUnavailable"], desired, false) } else { 0 };
        let stuck = rolls && surge == 0 && unavailable == 0;
        let unavailable = if stuck { 1 } else { unavailable }.min(desired);
        Self { desired, surge, unavailable }
    }

    /// Pods that may be unavailable.
    pub(super) fn unavailable(&self) -> i64 {
        self.unavailable
    }
}

fn resolve(value: &Value, of: i64, up: bool) -> i64 {
    match value {
        Value::String(percent) => {
            let percent: i64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.saturating_mul(of);
            if up { (product + 99) / 100 } else { product / 100 }
        }
        number => number.as_i64().unwrap_or(0),
    }
}

/// The annotations that a sized ReplicaSet carries.
pub(super) fn size_annotations(deployment: &Value) -> [(&'static str, String); 2] {
    let limits = Limits::of(deployment);
    [(DESIRED, limits.desired.to_string()), (MAXIMUM, (limits.desired + limits.surge).to_string())]
}

fn replicas(set: &Object) -> i64 {
    int_at(set, "/spec/replicas")
}

fn available(set: &Object) -> i64 {
    int_at(set, "/status/availableReplicas")
}

/// The size a ReplicaSet begins with beside others.
pub(super) fn first_size(deployment: &Value, others: &[Object]) -> i64 {
    let limits = Limits::of(deployment);
    grown(&limits, 0, others.iter().map(replicas).sum())
}

fn grown(limits: &Limits, own: i64, others: i64) -> i64 {
    let room = limits.desired + limits.surge - own - others;
    own + room.min(limits.desired - own).max(0)
}

/// The next size of the new ReplicaSet: grown as far as the surge allows, or cut to the desired size.
pub(super) fn new_size(limits: &Limits, new: &Object, old: &[Object]) -> i64 {
    let own = replicas(new);
    if own >= limits.desired { limits.desired } else { grown(limits, own, old.iter().map(replicas).sum()) }
}

/// The next sizes of old ReplicaSets by their index: unavailable pods go first, then as many as the available ones
/// elsewhere allow.
pub(super) fn old_sizes(limits: &Limits, new: Option<&Object>, old: &[Object]) -> Vec<(usize, i64)> {
    let total: i64 = old.iter().chain(new).map(replicas).sum();
    let least = limits.desired - limits.unavailable;
    let new_unavailable = new.map_or(0, |new| replicas(new) - available(new));
    let mut sizes: Vec<i64> = old.iter().map(replicas).collect();
    let mut budget = total - least - new_unavailable;
    if budget <= 0 {
        return Vec::new();
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let broken = (*size - available(set)).clamp(0, budget);
        *size -= broken;
        budget -= broken;
    }
    let ready: i64 = old.iter().chain(new).map(available).sum();
    let mut budget = (ready - least).max(0);
    for size in &mut sizes {
        let step = (*size).min(budget);
        *size -= step;
        budget -= step;
    }
    sizes.into_iter().enumerate().filter(|(index, size)| *size != replicas(&old[*index])).collect()
}

/// Whether the Deployment was scaled since its ReplicaSets were sized, and nothing else has to move.
pub(super) fn only_scaled(deployment: &Value, sets: &Sets) -> bool {
    let desired = int_at(deployment, "/spec/replicas").to_string();
    let changed = |set: &&Object| {
        let annotation = set["metadata"]["annotations"][DESIRED].as_str();
        replicas(set) > 0 && annotation.is_some_and(|known| known != desired)
    };
    sets.new.is_some() && !bool_at(deployment, "/spec/paused") && sets.all().any(|set| changed(&set))
}

/// The sizes after a change of `spec.replicas` alone. With one ReplicaSet in use it takes the whole size; during a
/// rollout every one grows or shrinks in proportion, the largest taking what rounding leaves.
pub(super) fn scaled(deployment: &Value, sets: &Sets) -> Vec<(Object, i64)> {
    let limits = Limits::of(deployment);
    let mut used: Vec<&Object> = sets.all().filter(|set| replicas(set) > 0).collect();
    if used.is_empty() {
        used.extend(sets.new.iter().chain(sets.old.last()).take(1));
    }
    if let [only] = used.as_slice() {
        return vec![(Object::clone(only), limits.desired)];
    }
    let total: i64 = used.iter().map(|set| replicas(set)).sum();
    let allowed = if limits.desired > 0 { limits.desired + limits.surge } else { 0 };
    let before = used.iter().find_map(|set| set["metadata"]["annotations"][MAXIMUM].as_str()?.parse().ok());
    let before: i64 = before.filter(|before| *before > 0).unwrap_or(total).max(1);
    let mut left = allowed - total;
    used.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
    let mut sizes: Vec<(Object, i64)> = Vec::with_capacity(used.len());
    for set in used {
        let size = replicas(set);
        let share = (size * allowed + before / 2) / before - size;
        let share = if left >= 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        left -= share;
        sizes.push((Object::clone(set), (size + share).max(0)));
    }
    if let Some((_, largest)) = sizes.first_mut() {
        *largest = (*largest + left).max(0);
    }
    // All of them note the new size, so that the next look finds nothing scaled.
    sizes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn deployment(replicas: i64, surge: Value, unavailable: Value) -> Value {
        json!({"spec": {"replicas": replicas, "strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
        }}})
    }

    fn set(replicas: i64, available: i64) -> Object {
        Arc::new(json!({"spec": {"replicas": replicas}, "status": {"availableReplicas": available}}))
    }

    #[test]
    fn percentages_round_to_the_safe_side() {
        let limits = Limits::of(&deployment(10, json!("25%"), json!("25%")));
        assert_eq!((limits.surge, limits.unavailable), (3, 2));
        let limits = Limits::of(&deployment(1, json!("25%"), json!("25%")));
        assert_eq!((limits.surge, limits.unavailable), (1, 0));
        let limits = Limits::of(&deployment(2, json!(0), json!("10%")));
        assert_eq!((limits.surge, limits.unavailable), (0, 1));
    }

    /// Whatever the limits and the order in which pods become ready, a rollout ends, and never leaves its limits.
    #[test]
    fn a_rollout_ends_and_keeps_to_its_limits() {
        for (replicas, surge, unavailable) in [(1, 1, 0), (3, 0, 1), (10, 3, 2), (4, 1, 1), (5, 5, 0), (2, 0, 2)] {
            let deployment = deployment(replicas, json!(surge), json!(unavailable));
            let limits = Limits::of(&deployment);
            let (mut old, mut new) = (set(replicas, replicas), set(0, 0));
            for _ in 0..100 {
                let size = new_size(&limits, &new, std::slice::from_ref(&old));
                new = set(size, available(&new).min(size));
                if let [(_, size)] = old_sizes(&limits, Some(&new), std::slice::from_ref(&old))[..] {
                    old = set(size, size);
                }
                assert!(super::replicas(&new) + super::replicas(&old) <= replicas + surge);
                assert!(available(&new) + available(&old) >= replicas - limits.unavailable);
                new = set(super::replicas(&new), (available(&new) + 1).min(super::replicas(&new)));
            }
            assert_eq!((super::replicas(&new), super::replicas(&old)), (replicas, 0));
        }
    }
}
