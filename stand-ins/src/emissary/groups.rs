//! Mappings with the same conditions: one group, whose members share the requests by weight.
//!
//! Each member has a route of its own, which is taken for its share of the requests; the headers are the group's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::hosts::{Host, meet};
use super::mappings::{Action, Mapping};
use crate::envoy::model::{self, HeaderOps, Route};
use crate::status::Complaint;

/// What all members have to say alike, in as far as this stand-in reads it (`CoreMappingKeys` in `irhttpmappinggroup.py`).
const ALIKE: [&str; 4] = ["connect_timeout_ms", "load_balancer", "prefix_exact", "prefix_regex"];

/// A group with its routes.
pub(super) struct Group<'a> {
    /// Never empty.
    members: Vec<&'a Mapping<'a>>,
    labels: BTreeMap<String, String>,
    routes: Vec<Route>,
}

/// The groups of all Mappings, those that are tried first at the front.
pub(super) fn form<'a>(mappings: &'a [Mapping<'a>], complaints: &mut BTreeSet<Complaint>) -> Vec<Group<'a>> {
    let mut members: BTreeMap<_, Vec<&Mapping<'_>>> = BTreeMap::new();
    for mapping in mappings {
        let group = members.entry(&mapping.conditions).or_default();
        match group.first().and_then(|first| unfit(first, mapping)) {
            Some(why) => _ = complaints.insert(mapping.resource.complaint(why)),
            None => group.push(mapping),
        }
    }
    let mut groups: Vec<Group<'_>> = members.into_values().map(|members| Group::new(members, complaints)).collect();
    groups.sort_by_cached_key(|group| Reverse(rank(group.members[0])));
    groups
}

/// Why a Mapping cannot be of a group that has begun.
fn unfit(first: &Mapping<'_>, mapping: &Mapping<'_>) -> Option<String> {
    let name = &mapping.resource.name;
    let (its, firsts) = (&mapping.resource.spec, &first.resource.spec);
    let mismatched = ALIKE.into_iter().find(|field| !its[*field].is_null() && its[*field] != firsts[*field]);
    let which = |action: &Action| matches!(action, Action::Redirect(_));
    match (mismatched, which(&first.action), which(&mapping.action)) {
        (Some(field), ..) => Some(format!("cannot accept new mapping {name} with mismatched {field}")),
        (None, true, true) => {
            Some(format!("cannot accept {name} as second host_redirect after {}", first.resource.name))
        }
        (None, true, false) => {
            Some(format!("cannot accept {name} without host_redirect after {} with host_redirect", first.resource.name))
        }
        (None, false, true) => Some(format!(
            "cannot accept {name} with host_redirect after mappings without host_redirect (eg {})",
            first.resource.name
        )),
        (None, false, false) => None,
    }
}

/// By what groups are ordered (`_route_weight` in `irhttpmapping.py`): the higher, the earlier.
type Rank = (i64, usize, usize, String, String, Vec<String>);

fn rank(mapping: &Mapping<'_>) -> Rank {
    let conditions = &mapping.conditions;
    let lengths = conditions.headers.iter().map(super::mappings::Condition::length).sum();
    let keys = conditions.headers.iter().map(super::mappings::Condition::key).collect();
    let (prefix, method) = (conditions.prefix.clone(), conditions.method.clone());
    (conditions.precedence, prefix.len(), lengths, prefix, method, keys)
}

impl<'a> Group<'a> {
    fn new(members: Vec<&'a Mapping<'a>>, complaints: &mut BTreeSet<Complaint>) -> Self {
        let labels = members.iter().flat_map(|member| member.resource.labels.clone()).collect();
        // Where two say different things of the same header, what the last one says is said to all of them.
        let (mut request, mut response) = (HeaderOps::default(), HeaderOps::default());
        for member in &members {
            merge(&mut request, &member.request);
            merge(&mut response, &member.response);
        }
        let upgrades = members.iter().rev().find_map(|member| member.allow_upgrade.as_deref()).unwrap_or_default();
        let websocket = upgrades.iter().any(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        let shares = shares(&members, complaints);
        let routes = shares.into_iter().map(|(member, percent)| Route {
            path: member.path.clone(),
            headers: member.conditions.headers.iter().filter_map(|condition| condition.header_match()).collect(),
            percent: Some(percent).filter(|percent| *percent < 100),
            action: match &member.action {
                Action::Redirect(redirect) => model::Action::Redirect(redirect.clone()),
                Action::Forward(forward) => {
                    model::Action::Forward(Box::new(model::Forward { websocket, ..(**forward).clone() }))
                }
            },
            request_headers: request.clone(),
            response_headers: response.clone(),
        });
        Self { routes: routes.collect(), members, labels }
    }

    /// Its routes, one after the other.
    pub(super) fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.routes.iter().cloned()
    }

    /// Whether a Host serves it (`matches_httpgroup` in `irhost.py`).
    pub(super) fn is_of(&self, host: &Host) -> bool {
        let first = self.members[0];
        let by_name = first.hostname.as_ref().is_some_and(|name| first.host_is_regex || meet(&host.hostname, name));
        by_name || host.selects(&self.labels)
    }
}

/// The members in the order in which they are tried, each with the share that is taken by it and those before it: every request
/// draws one number of 100, which counts for all (`normalize_weights_in_mappings` in `irbasemappinggroup.py`).
fn shares<'a>(members: &[&'a Mapping<'a>], complaints: &mut BTreeSet<Complaint>) -> Vec<(&'a Mapping<'a>, u32)> {
    if let [only] = members {
        return vec![(*only, 100)];
    }
    let mut found = Vec::new();
    let mut taken = 0_u32;
    let (weighted, silent): (Vec<&Mapping<'_>>, Vec<_>) = members.iter().partition(|member| member.weight.is_some());
    for member in weighted {
        let weight = member.weight.unwrap_or_default();
        if weight > 100 {
            let why = format!("Mapping {} has invalid weight {weight}", member.resource.name);
            complaints.insert(member.resource.complaint(why));
            // Those who were counted keep what they have, and nobody comes after them.
            return found;
        }
        taken += weight;
        found.push((member, taken.min(100)));
    }
    if taken > 100 {
        let why = "Total weight of mappings exceeds 100, please reconfigure for correct behavior...";
        complaints.insert(members[0].resource.complaint(why));
        return found;
    }
    let count = u32::try_from(silent.len()).unwrap_or(u32::MAX);
    for (index, member) in silent.into_iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        // To the nearest of 100, and the last one has what is left.
        let each = (2 * (100 - taken) + count) / (2 * count);
        let share = if index + 1 == count { 100 } else { (taken + each * (index + 1)).min(100) };
        found.push((member, share));
    }
    found
}

/// `from` said after `into`.
fn merge(into: &mut HeaderOps, from: &HeaderOps) {
    if !from.remove.is_empty() {
        into.remove.clone_from(&from.remove);
    }
    for (name, value) in &from.set {
        into.append.remove(name);
        into.set.insert(name.clone(), value.clone());
    }
    for (name, value) in &from.append {
        into.set.remove(name);
        into.append.insert(name.clone(), value.clone());
    }
}
