//! `tokenizer_config.json` and `chat_template.jinja`: what stands beside a `tokenizer.json`.

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// The parts of a `tokenizer_config.json` that matter for inference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenizerConfig {
    /// The token that begins a text.
    pub bos_token: Option<String>,
    /// The token that ends a text.
    pub eos_token: Option<String>,
    /// The token for what the vocabulary does not have.
    pub unk_token: Option<String>,
    /// The token that fills batches.
    pub pad_token: Option<String>,
    /// Whether BOS goes before a text, where the file says so.
    pub add_bos_token: Option<bool>,
    /// Whether EOS goes after a text, where the file says so.
    pub add_eos_token: Option<bool>,
    /// The longest sequence the tokenizer was made for, in tokens. Absurd values (10³⁰) are `None`.
    pub model_max_length: Option<u64>,
    /// Chat templates by name. A single one is named `default`.
    pub chat_templates: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Raw {
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    unk_token: Option<Named>,
    pad_token: Option<Named>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    model_max_length: Option<Value>,
    chat_template: Option<Templates>,
}

/// A token is its text, or an object with its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Object { content: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Many(Vec<Template>),
    Map(serde_json::Map<String, Value>),
}

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
}

impl TokenizerConfig {
    /// Reads a `tokenizer_config.json`.
    ///
    /// # Errors
    /// `Malformed` where a field has another shape than published files give it.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        const FORMAT: &str = "tokenizer_config.json";
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| Error::json(FORMAT, bytes, &e))?;
        let text = |token: Option<Named>| {
            token.map(|token| match token {
                Named::Text(text) | Named::Object { content: text } => text,
            })
        };
        let chat_templates = match raw.chat_template {
            None => Vec::new(),
            Some(Templates::One(source)) => vec![("default".to_owned(), source)],
            Some(Templates::Many(many)) => many.into_iter().map(|t| (t.name, t.template)).collect(),
            Some(Templates::Map(map)) => {
                let text = |(name, source): (String, Value)| match source {
                    Value::String(source) => Ok((name, source)),
                    _ => Err(Error::malformed(
                        FORMAT,
                        format!("chat template {name:?} is not text"),
                    )),
                };
                map.into_iter().map(text).collect::<Result<_>>()?
            }
        };
        Ok(Self {
            bos_token: text(raw.bos_token),
            eos_token: text(raw.eos_token),
            unk_token: text(raw.unk_token),
            pad_token: text(raw.pad_token),
            add_bos_token: raw.add_bos_token,
            add_eos_token: raw.add_eos_token,
            model_max_length: raw.model_max_length.and_then(|n| n.as_u64()),
            chat_templates,
        })
    }

    /// Adds the text of a `chat_template.jinja`, which goes before a template of the same name
    /// (`default`) in this file.
    pub fn with_template_file(mut self, source: impl Into<String>) -> Self {
        self.chat_templates.retain(|(name, _)| name != "default");
        self.chat_templates
            .insert(0, ("default".to_owned(), source.into()));
        self
    }

    /// The template to use: the one called `tool_use` if there are tools and it exists, otherwise
    /// `default`, otherwise the only one.
    pub fn chat_template(&self, with_tools: bool) -> Option<&str> {
        let by_name = |wanted: &str| {
            self.chat_templates
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, s)| s.as_str())
        };
        let only = || match self.chat_templates.as_slice() {
            [(_, source)] => Some(source.as_str()),
            _ => None,
        };
        let tool_use = if with_tools {
            by_name("tool_use")
        } else {
            None
        };
        tool_use.or_else(|| by_name("default")).or_else(only)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_as_text_and_as_objects() {
        let config = TokenizerConfig::from_json(
            br#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": null,
                "add_bos_token": true, "model_max_length": 1000000000000000019884624838656,
                "chat_template": "{{ messages }}", "unknown_field": [1]}"#,
        )
        .unwrap();
        assert_eq!(config.bos_token.as_deref(), Some("<s>"));
        assert_eq!(config.eos_token.as_deref(), Some("</s>"));
        assert_eq!(
            (config.pad_token.clone(), config.add_bos_token),
            (None, Some(true))
        );
        assert_eq!(config.model_max_length, None);
        assert_eq!(config.chat_template(true), Some("{{ messages }}"));
        let config = config.with_template_file("file");
        assert_eq!(config.chat_template(false), Some("file"));
        assert_eq!(config.chat_templates.len(), 1);
    }

    #[test]
    fn named_templates() {
        let config = TokenizerConfig::from_json(
            br#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#,
        )
        .unwrap();
        assert_eq!(config.chat_template(false), Some("d"));
        assert_eq!(config.chat_template(true), Some("t"));
        assert_eq!(TokenizerConfig::default().chat_template(false), None);
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            "",
            "[1]",
            r#"{"bos_token": 7}"#,
            r#"{"chat_template": [{"name": 1}]}"#,
            "{\"a\": 1",
        ] {
            let got = TokenizerConfig::from_json(bad.as_bytes());
            assert!(
                matches!(got, Err(Error::Malformed { .. })),
                "{bad}: {got:?}"
            );
        }
    }
}
