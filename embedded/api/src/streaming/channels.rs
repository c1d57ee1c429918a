//! The channel protocols of Kubernetes' WebSockets: every binary message begins with a channel number.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Adds the half-close message to version 4.
pub(crate) const V5: &str = "v5.channel.k8s.io";
/// Data only.
pub(crate) const V4: &str = "v4.channel.k8s.io";
/// In version 5, a message on this channel closes the channel that it names.
pub(crate) const CLOSE: u8 = 255;

/// A message on a channel.
pub(crate) fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.extend_from_slice(&[channel]);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.freeze())
}

/// The channel and the data of a message. Text counts as bytes; control messages have no channel.
pub(crate) fn parts(message: Message) -> Option<(u8, Bytes)> {
    let mut data = match message {
        Message::Binary(data) => data,
        Message::Text(text) => text.into(),
        _ => return None,
    };
    if data.is_empty() {
        return None;
    }
    let channel = data.split_to(1)[0];
    Some((channel, data))
}

/// The last message of a session that went well. kubectl takes a close without a code for an error.
pub(crate) fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Sends what `from` gives on a channel until it ends or nobody listens.
pub(crate) async fn pump(channel: u8, from: impl AsyncRead, to: mpsc::Sender<Message>) {
    let mut from = pin!(from);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send(message(channel, &buffer[..count])).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_channel_and_its_data() {
        let (channel, data) = parts(message(3, b"abc")).unwrap();
        assert_eq!((channel, &data[..]), (3, &b"abc"[..]));
        assert!(parts(Message::Binary(Bytes::new())).is_none());
        assert!(parts(Message::Ping(Bytes::new())).is_none());
    }
}
