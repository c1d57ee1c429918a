//! Label and field selectors: which objects a list, a watch or a controller is about.

mod fields;
mod labels;

pub use fields::{FieldSelector, text_at};
pub use labels::LabelSelector;

/// Why a selector could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text breaks the grammar.
    #[error("unable to parse selector {selector:?}: found {found:?}, expected {expected}")]
    Syntax {
        /// The whole selector.
        selector: String,
        /// The token that does not fit; empty at the end.
        found: String,
        /// What could have stood there.
        expected: &'static str,
    },
    /// A label key or value is not one.
    #[error("invalid label {part} {text:?}: {rule}")]
    Label {
        /// `key` or `value`.
        part: &'static str,
        /// The text as given.
        text: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A comparison of a number with something else.
    #[error("for the operators '>' and '<' the value must be an integer, found {0:?}")]
    NotANumber(String),
    /// A term of a field selector without an operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole selector.
        selector: String,
        /// The term.
        term: String,
    },
    /// A `matchExpressions` entry is not as `metav1.LabelSelectorRequirement` wants it.
    #[error("invalid matchExpressions entry for key {key:?}: {problem}")]
    Expression {
        /// Its key.
        key: String,
        /// What is wrong.
        problem: String,
    },
}
