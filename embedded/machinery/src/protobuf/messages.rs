//! The table of messages, read once from `messages.txt`.

use std::collections::HashMap;
use std::sync::OnceLock;

const TABLE: &str = include_str!("messages.txt");

/// All messages by name.
pub(super) struct Messages {
    kinds: HashMap<(&'static str, &'static str), &'static str>,
    messages: HashMap<&'static str, Message>,
}

/// The fields of a message by number.
pub(super) struct Message {
    pub(super) name: &'static str,
    fields: HashMap<u32, FieldType>,
}

/// A field as the table has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldType {
    /// JSON name.
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// A scalar's name, `Time` and the like, or a message's.
    pub(super) of: &'static str,
}

/// The prefix of a type in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    List,
    Map,
    Pointer,
    Struct,
    Inline,
}

impl Messages {
    /// The table.
    pub(super) fn shared() -> &'static Self {
        static SHARED: OnceLock<Messages> = OnceLock::new();
        SHARED.get_or_init(|| Self::read(TABLE))
    }

    fn read(table: &'static str) -> Self {
        let mut all = Self { kinds: HashMap::new(), messages: HashMap::new() };
        let mut current = "";
        for line in table.lines() {
            let words: Vec<&'static str> = line.split_whitespace().collect();
            match words[..] {
                ["kind", api_version, kind, message] => {
                    all.kinds.insert((api_version, kind), message);
                }
                ["message", name] => {
                    current = name;
                    all.messages.insert(name, Message { name, fields: HashMap::new() });
                }
                [number, name, of] => {
                    if let (Ok(number), Some(message)) = (number.parse(), all.messages.get_mut(current)) {
                        message.fields.insert(number, FieldType::read(name, of));
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// The message of a kind.
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let name = self.kinds.get(&(api_version, kind)).or_else(|| self.kinds.get(&("*", kind)))?;
        self.get(name)
    }

    /// A message by name; none for the scalars and special types.
    pub(super) fn get(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<FieldType> {
        self.fields.get(&number).copied()
    }
}

impl FieldType {
    fn read(name: &'static str, of: &'static str) -> Self {
        const FORMS: [(&str, Form); 5] =
            [("[]", Form::List), ("{}", Form::Map), ("*", Form::Pointer), ("~", Form::Struct), ("^", Form::Inline)];
        let form = FORMS.iter().find_map(|(prefix, form)| Some((*form, of.strip_prefix(prefix)?)));
        let (form, of) = form.unwrap_or((Form::Plain, of));
        Self { name, form, of }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: [&str; 14] = [
        "bool",
        "int32",
        "int64",
        "double",
        "string",
        "bytes",
        "strings",
        "Time",
        "MicroTime",
        "Duration",
        "IntOrString",
        "Quantity",
        "Json",
        "",
    ];

    #[test]
    fn every_line_is_understood_and_every_type_exists() {
        let all = Messages::shared();
        let mut fields = 0;
        for message in all.messages.values() {
            for field in message.fields.values() {
                assert!(SPECIAL.contains(&field.of) || all.get(field.of).is_some(), "{}: {field:?}", message.name);
                fields += 1;
            }
        }
        assert!(all.kinds.values().all(|message| all.get(message).is_some()));
        let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(lines, fields + all.messages.len() + all.kinds.len());
    }

    #[test]
    fn no_message_holds_itself() {
        fn depth(all: &Messages, name: &str, left: u32) {
            assert!(left > 0, "{name} is nested without end");
            let message = all.get(name);
            message.into_iter().flat_map(|m| m.fields.values()).for_each(|field| depth(all, field.of, left - 1));
        }
        let all = Messages::shared();
        all.kinds.values().for_each(|name| depth(all, name, 16));
    }
}
