//! Messages in the JSON form that chat APIs share.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// One message. Fields beside `role` and `content` (`tool_calls`, `name`, `reasoning_content`, …) are
/// kept, in order, and reach the template.
///
/// ```
/// use firelight_text::{Content, Message};
///
/// let message: Message = serde_json::from_str(r#"{"role": "user", "content": "Hi", "name": "Ada"}"#)?;
/// assert_eq!(message.content, Content::from("Hi"));
/// assert_eq!(message.extra["name"], "Ada");
/// assert_eq!(Message::user("Hi").role, "user");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, ….
    pub role: String,
    /// What is said.
    #[serde(default, skip_serializing_if = "Content::is_absent")]
    pub content: Content,
    /// Every other field.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A message of this role.
    pub fn new(role: impl Into<String>, content: impl Into<Content>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            extra: Map::new(),
        }
    }

    /// A `system` message.
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new("system", content)
    }

    /// A `user` message.
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new("user", content)
    }

    /// An `assistant` message.
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new("assistant", content)
    }
}

/// The content of a message.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Content {
    /// The message has no `content` field (an assistant message of tool calls may not).
    #[default]
    Absent,
    /// `null`.
    Null,
    /// Text.
    Text(String),
    /// Text, images, audio in order.
    Parts(Vec<Part>),
    /// Anything else, for templates that know what to do with it.
    Other(Value),
}

impl Content {
    /// Whether there is no `content` field.
    pub fn is_absent(&self) -> bool {
        matches!(self, Content::Absent)
    }

    /// The text of all text parts, joined.
    pub fn text(&self) -> String {
        match self {
            Content::Text(text) => text.clone(),
            Content::Parts(parts) => parts.iter().filter_map(Part::as_text).collect(),
            Content::Absent | Content::Null | Content::Other(_) => String::new(),
        }
    }

    /// The parts, where the content is a list of them.
    pub fn parts(&self) -> &[Part] {
        match self {
            Content::Parts(parts) => parts,
            _ => &[],
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Content::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content::Text(text)
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Content::Parts(parts)
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Content::Absent | Content::Null => serializer.serialize_none(),
            Content::Text(text) => serializer.serialize_str(text),
            Content::Parts(parts) => parts.serialize(serializer),
            Content::Other(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Content::Null,
            Value::String(text) => Content::Text(text),
            Value::Array(items) if items.iter().all(Value::is_object) => {
                let part = |item| match item {
                    Value::Object(fields) => Part(fields),
                    _ => Part(Map::new()),
                };
                Content::Parts(items.into_iter().map(part).collect())
            }
            other => Content::Other(other),
        })
    }
}

/// One part of a message, field by field as it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Part(pub Map<String, Value>);

/// What a [`Part`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartKind {
    /// `text`, `input_text`.
    Text,
    /// `image`, `image_url`, `input_image`.
    Image,
    /// `audio`, `audio_url`, `input_audio`.
    Audio,
    /// `video`, `video_url`.
    Video,
    /// Anything else.
    Other,
}

impl Part {
    /// `{"type": "text", "text": …}`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of("text", Some(("text", text.into())))
    }

    /// `{"type": "image"}`: the place of an image that is given apart.
    pub fn image() -> Self {
        Self::of("image", None)
    }

    /// `{"type": "audio"}`: the place of a sound that is given apart.
    pub fn audio() -> Self {
        Self::of("audio", None)
    }

    fn of(kind: &str, field: Option<(&str, String)>) -> Self {
        let mut fields = Map::new();
        fields.insert("type".to_owned(), kind.into());
        if let Some((name, value)) = field {
            fields.insert(name.to_owned(), value.into());
        }
        Self(fields)
    }

    /// What the part is, by its `type`; without one, by the field it has.
    pub fn kind(&self) -> PartKind {
        let by_name = |name: &str| match name {
            "text" | "input_text" | "output_text" => PartKind::Text,
            "image" | "image_url" | "input_image" => PartKind::Image,
            "audio" | "audio_url" | "input_audio" => PartKind::Audio,
            "video" | "video_url" => PartKind::Video,
            _ => PartKind::Other,
        };
        match self.0.get("type").and_then(Value::as_str) {
            Some(name) => by_name(name),
            None => self
                .0
                .keys()
                .map(|name| by_name(name))
                .find(|kind| *kind != PartKind::Other)
                .unwrap_or(PartKind::Other),
        }
    }

    /// The text of a text part.
    pub fn as_text(&self) -> Option<&str> {
        match self.kind() {
            PartKind::Text => self.0.get("text").and_then(Value::as_str),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let cases = [
            r#"{"role":"user","content":"Hi"}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"z":1,"a":2}}}]}"#,
            r#"{"role":"assistant","tool_calls":[]}"#,
            r#"{"role":"user","content":[{"type":"image"},{"type":"text","text":"What?"},{"type":"image_url","image_url":{"url":"x"}}],"name":"Ada"}"#,
            r#"{"role":"tool","content":{"temperature":7}}"#,
            r#"{"role":"user","content":[1,"a"]}"#,
        ];
        for case in cases {
            let message: Message = serde_json::from_str(case).unwrap();
            assert_eq!(serde_json::to_string(&message).unwrap(), case);
        }
    }

    #[test]
    fn parts() {
        let message: Message = serde_json::from_str(cases()).unwrap();
        let kinds: Vec<PartKind> = message.content.parts().iter().map(Part::kind).collect();
        use PartKind::{Audio, Image, Other, Text};
        assert_eq!(kinds, [Image, Text, Audio, Image, Other]);
        assert_eq!(message.content.text(), "What?");
        assert_eq!(Part::text("a").as_text(), Some("a"));
        assert_eq!((Part::image().kind(), Part::audio().kind()), (Image, Audio));
    }

    fn cases() -> &'static str {
        r#"{"role":"user","content":[{"type":"image"},{"type":"text","text":"What?"},
            {"type":"input_audio","data":""},{"image":"x"},{"type":"hologram"}]}"#
    }
}
