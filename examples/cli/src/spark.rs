//! firelight-spark, the vision-language model that is in the program: pictures can be asked about with no hub in reach.

use anyhow::{Context, Result};
use firelight_runtime::catalogue::Catalogue;

/// Its name in the catalogue.
pub(crate) const NAME: &str = "firelight-spark";

/// What it cannot do, and what can.
pub(crate) const NOTE: &str = "firelight-spark knows drawn shapes and short printed words only, and answers wrongly about photographs; \
     for those take a larger model, as in --model hf:HuggingFaceTB/SmolVLM-256M-Instruct";

macro_rules! files {
    ($($name:literal),*) => {
        &[$(($name, include_bytes!(concat!("../../assets/spark/model/", $name)))),*]
    };
}

const FILES: &[(&str, &[u8])] = files![
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json"
];

/// Adds it to a catalogue.
pub(crate) fn embed(catalogue: &mut Catalogue) -> Result<()> {
    let own = include_str!("../../assets/spark/catalogue.json");
    catalogue
        .embed(own, FILES)
        .context("the embedded model is not what its list says")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_files_have_the_hashes_of_the_list() {
        let mut catalogue = Catalogue::builtin().unwrap();
        embed(&mut catalogue).unwrap();
        let entry = catalogue.get("spark").unwrap();
        assert_eq!(
            (entry.name.as_str(), entry.files.len()),
            (NAME, FILES.len())
        );
        for file in &entry.files {
            let (_, bytes) = FILES.iter().find(|(name, _)| *name == file.name).unwrap();
            let hash = Sha256::digest(bytes);
            let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, file.sha256, "{}", file.name);
        }
        assert!(embed(&mut catalogue).is_err(), "the same name twice");
    }
}
