//! A checkpoint's text side: tokenizer, chat template, ids that end an answer.

use crate::checkpoint::Checkpoint;
use crate::{Error, Result};
use firelight_tensor::gguf::Metadata;
use firelight_text::{
    ChatInput, ChatTemplate, Content, GgufVocab, Message, Part, Tokenizer, TokenizerConfig,
    Vocabulary,
};
use std::sync::OnceLock;

/// See the module's head.
pub struct TextSide {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// `None`: a base model without one.
    pub template: Option<ChatTemplate>,
    /// Ids that end an answer.
    pub eos_ids: Vec<u32>,
    bos_token: String,
    eos_token: String,
    vocabulary: OnceLock<Vocabulary>,
    /// The template reads the parts of a content and knows no other form of it.
    reads_parts: bool,
}

/// A message whose content is parts, whatever it was.
fn in_parts(message: &Message) -> Message {
    let mut message = message.clone();
    if let Content::Text(text) = message.content {
        message.content = Content::Parts(vec![Part::text(text)]);
    }
    message
}

/// True if a template asks a content's parts for their type and never whether it is a plain text.
fn reads_parts(template: &str) -> bool {
    let asks = ["['type']", "[\"type\"]", ".type"]
        .iter()
        .any(|t| template.contains(t));
    asks && template.contains("'image'") | template.contains("\"image\"")
        && !template.contains("is string")
}

/// What a template is told beside the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendering<'a> {
    /// The tools the model may call: a list of functions with a name, a description and a JSON Schema of the parameters, in the form
    /// chat APIs share.
    pub tools: Option<&'a serde_json::Value>,
    /// The variable `enable_thinking` of the templates that have it. What a template does without it differs from model to model,
    /// so it is always said.
    pub thinking: bool,
}

impl TextSide {
    /// Reads what is beside or inside the weights.
    ///
    /// # Errors
    /// `Malformed` if there is no tokenizer, `Text` if it or the template is broken.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self> {
        if checkpoint.synthetic_dtype().is_some() {
            return Ok(TextSide {
                tokenizer: Tokenizer::from_json(NO_TOKENS)?,
                template: None,
                eos_ids: Vec::new(),
                bos_token: String::new(),
                eos_token: String::new(),
                vocabulary: OnceLock::new(),
                reads_parts: false,
            });
        }
        let mut eos_ids = checkpoint.eos_ids()?;
        let (tokenizer, template, config) = match checkpoint.weights().gguf_metadata() {
            Some(metadata) => {
                let template = metadata
                    .get_as::<&str>("tokenizer.chat_template")?
                    .map(str::to_owned);
                (Tokenizer::from_gguf(vocab(metadata)?)?, template, None)
            }
            None => {
                let json = checkpoint.side_file("tokenizer.json")?.ok_or_else(|| {
                    Error::malformed(
                        checkpoint.root().display().to_string(),
                        "tokenizer.json is missing",
                    )
                })?;
                let config = match checkpoint.side_file("tokenizer_config.json")? {
                    Some(bytes) => Some(TokenizerConfig::from_json(&bytes)?),
                    None => None,
                };
                let own = checkpoint.side_file("chat_template.jinja")?;
                let own = own.map(|b| String::from_utf8_lossy(&b).into_owned());
                let template = own.or_else(|| {
                    config
                        .as_ref()
                        .and_then(|c| c.chat_template(false).map(str::to_owned))
                });
                let mut tokenizer = Tokenizer::from_json(&json)?;
                if let Some(config) = &config {
                    tokenizer = tokenizer.with_config(config);
                }
                (tokenizer, template, config)
            }
        };
        if checkpoint.weights().gguf_metadata().is_some() {
            // The metadata has room for one or two; models end their turns with others, too.
            eos_ids.extend(tokenizer.end_ids());
            eos_ids.sort_unstable();
            eos_ids.dedup();
        }
        let piece = |id: Option<u32>| {
            id.and_then(|id| tokenizer.id_to_piece(id))
                .unwrap_or_default()
                .to_owned()
        };
        let named = |name: Option<&str>, id| name.map_or_else(|| piece(id), str::to_owned);
        let bos_token = named(
            config.as_ref().and_then(|c| c.bos_token.as_deref()),
            tokenizer.bos(),
        );
        let eos_token = named(
            config.as_ref().and_then(|c| c.eos_token.as_deref()),
            tokenizer.eos(),
        );
        let reads_parts = template.as_deref().is_some_and(reads_parts);
        let template = template.map(|t| ChatTemplate::new(&t)).transpose()?;
        Ok(TextSide {
            tokenizer,
            template,
            eos_ids,
            bos_token,
            eos_token,
            vocabulary: OnceLock::new(),
            reads_parts,
        })
    }

    /// The tokens as bytes, for grammars over a model of `vocab` logits. Made at the first call.
    ///
    /// # Errors
    /// `Text` if the model names no token that ends an answer.
    pub fn vocabulary(&self, vocab: usize) -> Result<Vocabulary> {
        if let Some(made) = self.vocabulary.get() {
            return Ok(made.clone());
        }
        let made = Vocabulary::new(&self.tokenizer, vocab, &self.eos_ids)?;
        Ok(self.vocabulary.get_or_init(|| made).clone())
    }

    /// Messages as the model's template writes them, without thinking.
    ///
    /// # Errors
    /// As [`TextSide::render_with`].
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with(messages, add_generation_prompt, Rendering::default())
    }

    /// Messages as the model's template writes them, with what else it may be told.
    ///
    /// # Errors
    /// `Unsupported` for a model without a template, `Text` if the template refuses the messages.
    pub fn render_with(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        with: Rendering<'_>,
    ) -> Result<String> {
        let template = self.template.as_ref().ok_or_else(|| {
            Error::Unsupported(
                "this is a base model without a chat template; give it text to continue (--raw) or take an instruct model".into(),
            )
        })?;
        // Templates of models that see read parts; a plain text becomes one.
        let parts;
        let messages = match self.reads_parts {
            true => {
                parts = messages.iter().map(in_parts).collect::<Vec<_>>();
                &parts[..]
            }
            false => messages,
        };
        let mut input = ChatInput {
            messages,
            add_generation_prompt,
            tools: with.tools.cloned(),
            bos_token: Some(self.bos_token.clone()),
            eos_token: Some(self.eos_token.clone()),
            ..ChatInput::default()
        };
        input
            .extra
            .insert("enable_thinking".to_owned(), with.thinking.into());
        Ok(template.render(&input)?)
    }

    /// The ids of a rendered conversation: its special tokens are in the text.
    ///
    /// # Errors
    /// `Text` if the text cannot be encoded.
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text, false)?)
    }

    /// The ids of plain text with the model's own leading and trailing special tokens.
    ///
    /// # Errors
    /// `Text` if the text cannot be encoded.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text, true)?)
    }
}

/// The tokenizer of a model with made-up weights: its ids stand for nothing.
const NO_TOKENS: &[u8] =
    br#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"-":0},"merges":[]}}"#;

/// The vocabulary a GGUF file carries.
fn vocab(m: &Metadata) -> Result<GgufVocab> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let strings = |name: &str| -> Result<Vec<String>> {
        let list = m.get_array_str(&key(name))?;
        Ok(list
            .map(|l| l.iter().map(str::to_owned).collect())
            .unwrap_or_default())
    };
    let id = |name: &str| -> Result<Option<u32>> { Ok(m.get_as::<u32>(&key(name))?) };
    let flag = |name: &str| -> Result<Option<bool>> { Ok(m.get_as::<bool>(&key(name))?) };
    Ok(GgufVocab {
        model: m.require::<&str>(&key("model"))?.to_owned(),
        pre: m.get_as::<&str>(&key("pre"))?.map(str::to_owned),
        tokens: strings("tokens")?,
        token_types: m
            .get_array_i32(&key("token_type"))?
            .unwrap_or_default()
            .into_owned(),
        scores: m
            .get_array_f32(&key("scores"))?
            .unwrap_or_default()
            .into_owned(),
        merges: strings("merges")?,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        unk: id("unknown_token_id")?,
        pad: id("padding_token_id")?,
        eot: id("eot_token_id")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        ..Default::default()
    })
}
