//! The law of an answer, from the command line.

use crate::Usage;
use anyhow::{Context, Result};
use firelight_runtime::Grammar;
use std::path::{Path, PathBuf};

/// What an answer must be, or may ask for.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Structured answers")]
pub(crate) struct LawArgs {
    /// The answer is JSON that is valid under the JSON Schema in this file (`-n` should leave it room)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["regex", "choices", "stop", "ignore_eos"])]
    schema: Option<PathBuf>,
    /// The whole answer matches this regular expression
    #[arg(long, value_name = "R", conflicts_with_all = ["choices", "stop", "ignore_eos"])]
    regex: Option<String>,
    /// The answer is one of these, separated by commas
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', conflicts_with_all = ["stop", "ignore_eos"])]
    choices: Vec<String>,
    /// The model may call the functions in this file: a JSON list in the form chat APIs share (name, description, parameters)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["schema", "regex", "choices", "raw"])]
    tools: Option<PathBuf>,
}

/// The JSON in a file.
fn json(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)
        .map_err(|e| Usage(format!("{} is no JSON: {e}", path.display())))?)
}

impl LawArgs {
    /// The tools, if there are any.
    pub(crate) fn tools(&self) -> Result<Option<serde_json::Value>> {
        let Some(path) = &self.tools else {
            return Ok(None);
        };
        let tools = json(path)?;
        if !tools.is_array() {
            return Err(Usage(format!("{}: expected a list of functions", path.display())).into());
        }
        Ok(Some(tools))
    }

    /// The grammar, if one was asked for.
    pub(crate) fn grammar(&self) -> Result<Option<Grammar>> {
        if let Some(path) = &self.schema {
            return Ok(Some(Grammar::JsonSchema(json(path)?)));
        }
        if let Some(regex) = &self.regex {
            return Ok(Some(Grammar::Regex(regex.clone())));
        }
        if self.choices.iter().any(String::is_empty) {
            return Err(Usage("--choices has an empty choice".to_owned()).into());
        }
        Ok((!self.choices.is_empty()).then(|| Grammar::Choices(self.choices.clone())))
    }
}
