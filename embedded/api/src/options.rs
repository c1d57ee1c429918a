//! The options of requests, in their query strings: what they mean, and which are refused.

use http::Method;
use http::header::USER_AGENT;
use meshgate_store::{Status, Store, Warnings, WriteOptions};
use serde_json::{Value, json};

use crate::handler::Call;
use crate::query::Query;

/// The longest name of a field manager, in bytes.
const MAX_MANAGER: usize = 128;

/// What is wrong with the options of one request.
pub(crate) struct Problems {
    /// What the options are called, e.g. `ListOptions`.
    kind: &'static str,
    /// Reason, field and sentence of each.
    found: Vec<(&'static str, &'static str, String)>,
}

impl Problems {
    pub(crate) fn of(kind: &'static str) -> Self {
        Self { kind, found: Vec::new() }
    }

    pub(crate) fn forbidden(&mut self, field: &'static str, why: &str) {
        self.found.push(("FieldValueForbidden", field, format!("Forbidden: {why}")));
    }

    pub(crate) fn required(&mut self, field: &'static str, why: &str) {
        self.found.push(("FieldValueRequired", field, format!("Required value: {why}")));
    }

    pub(crate) fn invalid(&mut self, field: &'static str, value: &str, why: &str) {
        self.found.push(("FieldValueInvalid", field, format!("Invalid value: {value:?}: {why}")));
    }

    /// `value` and `supported` as they are printed.
    pub(crate) fn unsupported(&mut self, field: &'static str, value: &Value, supported: &str) {
        let text = format!("Unsupported value: {value}: supported values: {supported}");
        self.found.push(("FieldValueNotSupported", field, text));
    }

    /// 422 when there are any.
    pub(crate) fn into_result(self) -> Result<(), Status> {
        let texts: Vec<String> = self.found.iter().map(|(_, field, text)| format!("{field}: {text}")).collect();
        let text = match &texts[..] {
            [] => return Ok(()),
            [only] => only.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let kind = self.kind;
        let mut status = Status::new(422, "Invalid", format!("{kind}.meta.k8s.io \"\" is invalid: {text}"));
        let causes: Vec<Value> = self
            .found
            .into_iter()
            .map(|(reason, field, text)| json!({"reason": reason, "message": text, "field": field}))
            .collect();
        status.details = json!({"group": "meta.k8s.io", "kind": kind, "causes": causes});
        Err(status)
    }
}

/// Refuses options of a list, or of a watch, that do not go together.
pub(crate) fn check_list(query: &Query, watch: bool) -> Result<(), Status> {
    const MATCH: &str = "resourceVersionMatch";
    let mut problems = Problems::of("ListOptions");
    let asks_for_initial_events = query.has("sendInitialEvents");
    let wanted = query.get(MATCH);
    if watch && asks_for_initial_events && wanted != Some("NotOlderThan") {
        problems.forbidden(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if let Some(wanted) = wanted {
        if watch {
            if !asks_for_initial_events {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                problems.forbidden(MATCH, why);
            }
            if wanted != "NotOlderThan" {
                problems.unsupported(MATCH, &json!(wanted), "\"NotOlderThan\"");
            }
        } else if query.get("resourceVersion").is_none() {
            problems.forbidden(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if query.get("continue").is_some() {
            problems.forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !watch && !["Exact", "NotOlderThan"].contains(&wanted) {
            problems.unsupported(MATCH, &json!(wanted), "\"Exact\", \"NotOlderThan\", \"\"");
        }
        if !watch && wanted == "Exact" && query.get("resourceVersion") == Some("0") {
            problems.forbidden(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if !watch && asks_for_initial_events {
        problems.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    problems.into_result()
}

/// `resourceVersion`: `None` for none and `0`. What is no number is a 500, as it is on Kubernetes.
pub(crate) fn revision(query: &Query) -> Result<Option<u64>, Status> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(revision) => Ok(Some(revision)),
        Err(_) => {
            let problem =
                if text.bytes().all(|c| c.is_ascii_digit()) { "value out of range" } else { "invalid syntax" };
            let message =
                format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {problem}");
            Err(Status::new(500, "", message))
        }
    }
}

/// 504 when the store has not come as far as the revision that the client has seen.
pub(crate) fn check_reached(store: &Store, asked: Option<u64>) -> Result<(), Status> {
    let current = store.revision();
    match asked {
        Some(asked) if asked > current => {
            let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
            let mut status = Status::new(504, "Timeout", message);
            let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
            status.details = json!({"causes": [cause], "retryAfterSeconds": 1});
            Err(status)
        }
        _ => Ok(()),
    }
}

/// Refuses a list of a moment that is not today's. Without its history the store has no other.
pub(crate) fn check_moment(store: &Store, query: &Query) -> Result<(), Status> {
    let asked = revision(query).map_err(|error| {
        let message = format!("invalid resource version: {}", error.message);
        Status::bad_request(message)
    })?;
    if asked.is_some() && query.get("continue").is_some() {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    check_reached(store, asked)?;
    match query.get("resourceVersionMatch") {
        Some("Exact") if asked.is_some_and(|asked| asked < store.revision()) => {
            Err(Status::new(410, "Expired", "The resourceVersion for the provided list is too old."))
        }
        _ => Ok(()),
    }
}

/// The options of a write.
pub(crate) fn write(call: &Call) -> Result<WriteOptions, Status> {
    let query = &call.query;
    let mut problems = Problems::of(match *call.request.method() {
        Method::PUT => "UpdateOptions",
        Method::PATCH => "PatchOptions",
        _ => "CreateOptions",
    });
    let dry_run = dry_run(query, &mut problems);
    let manager = query.get("fieldManager");
    if let Some(manager) = manager {
        check_manager(manager, &mut problems);
    }
    let (strict, warnings) = match query.get("fieldValidation") {
        None | Some("Warn") => (false, Warnings::heard()),
        Some("Ignore") => (false, Warnings::default()),
        Some("Strict") => (true, Warnings::default()),
        Some(other) => {
            problems.unsupported("fieldValidation", &json!(other), "\"\", \"Ignore\", \"Strict\", \"Warn\"");
            (false, Warnings::default())
        }
    };
    problems.into_result()?;
    let of_agent = || {
        let agent = call.request.headers().get(USER_AGENT)?.to_str().ok()?;
        agent.split('/').next()
    };
    Ok(WriteOptions {
        manager: manager.or_else(of_agent).unwrap_or_default().to_owned(),
        dry_run,
        strict,
        warnings,
        force: query.flag("force"),
    })
}

/// `dryRun`: only `All` is a value.
pub(crate) fn dry_run(query: &Query, problems: &mut Problems) -> bool {
    let values: Vec<&str> = query.all("dryRun").collect();
    if values.iter().any(|value| *value != "All") {
        problems.unsupported("dryRun", &json!(values), "\"All\"");
    }
    !values.is_empty()
}

fn check_manager(manager: &str, problems: &mut Problems) {
    let field = "fieldManager";
    if manager.len() > MAX_MANAGER {
        let text = format!("Too long: may not be more than {MAX_MANAGER} bytes");
        problems.found.push(("FieldValueTooLong", field, text));
    }
    // The position is that of the byte.
    if let Some((position, found)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {position})", u32::from(found));
        problems.invalid(field, manager, &why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(query: &str, watch: bool) -> Option<String> {
        let error = check_list(&Query::parse(query), watch).err()?;
        assert_eq!((error.code, &error.details["kind"]), (422, &json!("ListOptions")));
        Some(error.message.strip_prefix("ListOptions.meta.k8s.io \"\" is invalid: ").unwrap().to_owned())
    }

    #[test]
    fn what_a_list_may_not_ask() {
        let cases = [
            ("resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
            (
                "resourceVersionMatch=foo&resourceVersion=1",
                "Unsupported value: \"foo\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            ("resourceVersionMatch=Exact&resourceVersion=0", "is forbidden for resourceVersion \"0\""),
            (
                "resourceVersionMatch=Exact&resourceVersion=1&continue=x",
                "resourceVersionMatch is forbidden when continue is provided",
            ),
            ("sendInitialEvents=false", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ];
        for (query, message) in cases {
            let found = refusal(query, false).unwrap_or_default();
            assert!(found.contains(message), "{query}: {found}");
        }
        for fine in ["", "resourceVersion=1&resourceVersionMatch=NotOlderThan", "limit=5&resourceVersion=0"] {
            assert_eq!(refusal(fine, false), None, "{fine}");
        }
    }

    #[test]
    fn what_a_watch_may_not_ask() {
        let alone = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        let lacking = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let field = "resourceVersionMatch: Forbidden";
        assert_eq!(refusal("resourceVersionMatch=NotOlderThan", true), Some(format!("{field}: {alone}")));
        assert_eq!(refusal("sendInitialEvents=false", true), Some(format!("{field}: {lacking}")));
        let both = refusal("sendInitialEvents=true&resourceVersionMatch=Exact", true).unwrap();
        assert!(both.starts_with(&format!("[{field}: {lacking}, ")), "{both}");
        assert!(both.ends_with("Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]"), "{both}");
        assert_eq!(refusal("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true), None);
    }

    #[test]
    fn revisions() {
        let read = |query: &str| revision(&Query::parse(query));
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("resourceVersion=0").unwrap(), None);
        assert_eq!(read("resourceVersion=7").unwrap(), Some(7));
        let error = read("resourceVersion=x").unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (500, ""));
        assert!(error.message.ends_with("strconv.ParseUint: parsing \"x\": invalid syntax"), "{error}");
        assert!(read("resourceVersion=99999999999999999999").unwrap_err().message.ends_with("value out of range"));
    }

    #[test]
    fn only_the_revision_of_now_can_be_had() {
        let store = Store::new();
        let now = store.revision();
        let check = |revision: u64, more: &str| {
            let query = Query::parse(&format!("resourceVersion={revision}{more}"));
            check_moment(&store, &query).map_err(|error| error.code)
        };
        assert_eq!(check(now - 1, ""), Ok(()));
        assert_eq!(check(now, "&resourceVersionMatch=Exact"), Ok(()));
        assert_eq!(check(now - 1, "&resourceVersionMatch=Exact"), Err(410));
        assert_eq!(check(now + 1, ""), Err(504));
        assert_eq!(check(now, "&continue=x"), Err(400));
    }

    #[test]
    fn names_of_managers_and_dry_runs() {
        let mut problems = Problems::of("CreateOptions");
        check_manager(&"m".repeat(MAX_MANAGER), &mut problems);
        assert!(!dry_run(&Query::parse(""), &mut problems));
        assert!(dry_run(&Query::parse("dryRun=All"), &mut problems));
        assert!(problems.found.is_empty());
        check_manager(&"m".repeat(MAX_MANAGER + 1), &mut problems);
        check_manager("a\nb", &mut problems);
        dry_run(&Query::parse("dryRun="), &mut problems);
        let message = problems.into_result().unwrap_err().message;
        let expected = "CreateOptions.meta.k8s.io \"\" is invalid: \
                        [fieldManager: Too long: may not be more than 128 bytes, \
                        fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1), \
                        dryRun: Unsupported value: [\"\"]: supported values: \"All\"]";
        assert_eq!(message, expected);
    }
}
