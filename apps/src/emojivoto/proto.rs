//! The messages of package `emojivoto.v1`. Only field numbers travel, so the names here are Rust's.

/// Path prefix of the emoji service's methods, `ListAll` and `FindByShortcode`.
pub const EMOJI_SERVICE: &str = "emojivoto.v1.EmojiService";
/// Path prefix of the voting service's methods, `Results` and `Vote...`.
pub const VOTING_SERVICE: &str = "emojivoto.v1.VotingService";

/// One emoji.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Emoji {
    /// The characters.
    #[prost(string, tag = "1")]
    pub unicode: String,
    /// The name with its colons, `:joy:`.
    #[prost(string, tag = "2")]
    pub shortcode: String,
}

/// Asks for all emoji.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListAllEmojiRequest {}

/// All emoji.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListAllEmojiResponse {
    /// In the order of the table.
    #[prost(message, repeated, tag = "1")]
    pub list: Vec<Emoji>,
}

/// Asks for one emoji.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindByShortcodeRequest {
    /// The name with its colons.
    #[prost(string, tag = "1")]
    pub shortcode: String,
}

/// One emoji, or none when the name is unknown.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FindByShortcodeResponse {
    /// The emoji.
    #[prost(message, optional, tag = "1")]
    pub emoji: Option<Emoji>,
}

/// An emoji's standing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VotingResult {
    /// The name with its colons.
    #[prost(string, tag = "1")]
    pub shortcode: String,
    /// Votes so far.
    #[prost(int32, tag = "2")]
    pub votes: i32,
}

/// A vote; the method says for what.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VoteRequest {}

/// The vote counted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VoteResponse {}

/// Asks for the standings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResultsRequest {}

/// The standings, most votes first; emoji without votes are left out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResultsResponse {
    /// One per emoji with votes.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<VotingResult>,
}
