//! The wire format: a message is a sequence of numbered fields.

use super::DecodeError;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) payload: Payload<'a>,
}

/// What a field carries; its type is known only to who knows the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Payload<'a> {
    /// Booleans and integers.
    Varint(u64),
    /// `double`.
    Fixed64([u8; 8]),
    /// `float`, which the API does not use.
    Fixed32([u8; 4]),
    /// Strings, bytes, messages and packed lists.
    Bytes(&'a [u8]),
}

/// The fields of a message. Ends after an error.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, DecodeError> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Malformed("a field number is out of range"))?;
    if number == 0 {
        return Err(DecodeError::Malformed("a field has the number 0"));
    }
    let payload = match tag & 7 {
        0 => Payload::Varint(varint(rest)?),
        1 => Payload::Fixed64(*take_array(rest)?),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| DecodeError::Truncated)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
            *rest = after;
            Payload::Bytes(bytes)
        }
        5 => Payload::Fixed32(*take_array(rest)?),
        _ => return Err(DecodeError::Malformed("a field has an unknown wire type")),
    };
    Ok(Field { number, payload })
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], DecodeError> {
    let (array, after) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
    *rest = after;
    Ok(array)
}

/// An integer of up to 64 bits, seven to a byte, lowest first.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(DecodeError::Malformed("a number is longer than ten bytes"))
}
