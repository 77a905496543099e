//! What a client runs on, in two closed words; the `User-Agent` they come from is never kept.
//!
//! A `User-Agent` can single out a person, so nothing of its text leaves [`reduce`]. It is also a claim: an iPad that
//! asks for desktop sites, as it does by default, says it is a Mac, and is counted as one.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// How much of a `User-Agent` is looked at, in bytes. Real ones have 20 to 300.
const LOOKED_AT_BYTES: usize = 1024;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word of records.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let words: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                json_schema!({"type": "string", "enum": words})
            }
        }
    };
}

words! {
    /// A family of operating systems.
    Os {
        Windows "windows",
        /// Also an iPad that asks for desktop sites.
        Macos "macos",
        Linux "linux",
        Android "android",
        /// With iPadOS.
        Ios "ios",
        Chromeos "chromeos",
        Other "other",
    }
}

words! {
    /// What speaks for the client. For browsers it is the engine, because that is what media depends on.
    ClientKind {
        /// Chrome, Edge, Opera, Brave, Electron, Android's web view …
        Chromium "chromium",
        Firefox "firefox",
        /// WebKit: Safari, and every browser on iOS.
        Safari "safari",
        /// OBS, GStreamer, FFmpeg and others that speak WHIP or WHEP.
        WhipTool "whip_tool",
        /// A program with a WebRTC library of its own: libwebrtc in an app, aiortc, Pion …
        Native "native",
        Other "other",
    }
}

/// What words of a `User-Agent` begin with, and what that tells. The first that is found decides, so what imitates
/// others stands before them: Android says Linux, iOS says Mac OS X.
const SYSTEMS: [(&str, Os); 14] = [
    ("Windows", Os::Windows),
    ("CrOS ", Os::Chromeos),
    ("Android", Os::Android),
    ("iPhone", Os::Ios),
    ("iPad", Os::Ios),
    ("iPod", Os::Ios),
    ("iOS ", Os::Ios),
    ("iOS/", Os::Ios),
    ("Macintosh", Os::Macos),
    ("Mac OS X", Os::Macos),
    ("macOS", Os::Macos),
    ("apple-darwin", Os::Macos),
    ("Linux", Os::Linux),
    ("Ubuntu", Os::Linux),
];

/// As [`SYSTEMS`]. Tools stand first, for OBS begins like a browser; then engines, each before those it imitates; then
/// programs, whose names are short and could stand in a browser's text.
const CLIENTS: [(&str, ClientKind); 28] = [
    // Not "OBS/", which is a web page inside OBS.
    ("OBS-Studio", ClientKind::WhipTool),
    ("GStreamer", ClientKind::WhipTool),
    ("Lavf/", ClientKind::WhipTool),
    ("FFmpeg", ClientKind::WhipTool),
    ("Larix", ClientKind::WhipTool),
    ("mediamtx", ClientKind::WhipTool),
    ("whip", ClientKind::WhipTool),
    ("whep", ClientKind::WhipTool),
    ("Chrome/", ClientKind::Chromium),
    ("HeadlessChrome/", ClientKind::Chromium),
    ("Chromium/", ClientKind::Chromium),
    ("Firefox/", ClientKind::Firefox),
    ("AppleWebKit/", ClientKind::Safari),
    ("libwebrtc", ClientKind::Native),
    ("webrtc-rs", ClientKind::Native),
    ("aiortc", ClientKind::Native),
    ("aiohttp", ClientKind::Native),
    ("Python", ClientKind::Native),
    ("Go-http-client", ClientKind::Native),
    ("reqwest", ClientKind::Native),
    ("okhttp", ClientKind::Native),
    ("ktor", ClientKind::Native),
    ("Dalvik", ClientKind::Native),
    ("CFNetwork", ClientKind::Native),
    ("Dart/", ClientKind::Native),
    ("UnityPlayer", ClientKind::Native),
    ("UnrealEngine", ClientKind::Native),
    ("libcurl", ClientKind::Native),
];

/// The families that a `User-Agent` names. Upper and lower case are one; what is not known is `Other`.
pub fn reduce(user_agent: Option<&str>) -> (Os, ClientKind) {
    // Bytes, for the end of what is looked at may lie inside a character.
    let text = user_agent.unwrap_or_default().as_bytes();
    let text = &text[..text.len().min(LOOKED_AT_BYTES)];
    (first_found(text, &SYSTEMS).unwrap_or(Os::Other), first_found(text, &CLIENTS).unwrap_or(ClientKind::Other))
}

fn first_found<T: Copy>(text: &[u8], signs: &[(&str, T)]) -> Option<T> {
    signs.iter().find(|(sign, _)| begins_a_word(sign.as_bytes(), text)).map(|(_, meaning)| *meaning)
}

/// Whether `sign` stands in `text` without a letter before it: "kiosk" is not "iOS".
fn begins_a_word(sign: &[u8], text: &[u8]) -> bool {
    let mut places = text.windows(sign.len()).enumerate().filter(|(_, part)| part.eq_ignore_ascii_case(sign));
    places.any(|(at, _)| at == 0 || !text[at - 1].is_ascii_alphabetic())
}

#[cfg(test)]
mod tests;
