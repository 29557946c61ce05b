//! The cases of speech models: a recording in; front end, encoder states, logits and greedy tokens out.

use super::Verify;
use crate::checkpoint::Checkpoint;
use crate::engine::Engine;
use crate::speech::{Clip, Hears, LoadedSpeech, SpeechState, Token};
use crate::{Error, Result};
use firelight_audio::{Whisper, decode};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

impl Verify<'_> {
    /// Runs the cases of a speech model.
    pub(super) async fn speech(
        &mut self,
        engine: &Engine,
        checkpoint: Arc<Checkpoint>,
        dir: &Path,
        cases: &Map<String, Value>,
    ) -> Result<()> {
        let model = engine
            .load_speech_checkpoint(checkpoint, &mut |_, _| ())
            .await?;
        for (name, case) in cases {
            match name.as_str() {
                "tokenizer" => self.tokenizer(&model.text, case)?,
                _ => self.speech_case(&model, dir, name, case).await?,
            }
        }
        // The front end of other sizes, which has no case of its own.
        match self.golden.info("mel128_30s.values").is_some() {
            true => self.wide_front_end(dir, "mel128_30s"),
            false => Ok(()),
        }
    }

    /// Runs one case of a speech model.
    async fn speech_case(
        &mut self,
        model: &LoadedSpeech,
        dir: &Path,
        case: &str,
        value: &Value,
    ) -> Result<()> {
        let path = dir.join("input.wav");
        let bytes = std::fs::read(&path).map_err(|source| Error::Io {
            path: path.display().to_string(),
            source,
        })?;
        let samples = decode(&bytes)?.samples;
        let values = match model.model.spec().hears {
            Hears::Mel { .. } => self.heard(model, case, &samples)?,
            Hears::Samples { .. } => samples,
        };
        let mut state = SpeechState::new(&model.device, &model.model, 1)?;
        state.encode(&[Clip { values: &values }]).await?;
        let hidden = format!("{case}.encoder_hidden");
        if self.golden.info(&hidden).is_some() {
            let (states, d) = (state.states(), model.model.spec().hidden);
            let all = state.encoder_states().await?;
            self.floats(hidden, &[states, d], all)?;
        }

        let prompt = self.decoder_prompt(model, case, value)?;
        let vocab = model.model.spec().decoder.vocab;
        let tokens = |ids: &[u32], first: u32| -> Vec<Token> {
            let listed = ids.iter().zip(first..);
            listed
                .map(|(&id, position)| Token {
                    clip: 0,
                    position,
                    id,
                })
                .collect()
        };
        let n = prompt.len() as u32;
        let all: Vec<u32> = (0..n).collect();
        let logits = state.step(&tokens(&prompt, 0), &all).await?;
        let mut step = logits[logits.len().saturating_sub(vocab)..].to_vec();
        self.floats(format!("{case}.logits"), &[prompt.len(), vocab], logits)?;
        // Cached decoding, each step fed with our own choice.
        let name = format!("{case}.step_logits");
        let steps = self.golden.require(&name)?.shape.dims()[0];
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        for i in 0..steps {
            let best = step
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            ids.push(best.map_or(0, |(id, _)| id as u32));
            rows.append(&mut step);
            if i + 1 < steps {
                step = state.step(&tokens(&ids[i..], n + i as u32), &[0]).await?;
            }
        }
        self.floats(name, &[steps, vocab], rows)?;
        self.ids(format!("{case}.greedy_ids"), &ids)?;
        if let Some(text) = value.get("generated_text").and_then(Value::as_str) {
            let ours = model.text.tokenizer.decode(&ids, true);
            self.equal(format!("{case}.generated_text"), 1, &ours, &text.to_owned());
        }
        Ok(())
    }

    /// What decoding starts with: the tokens that the case names; where it names none they are its input.
    fn decoder_prompt(
        &mut self,
        model: &LoadedSpeech,
        case: &str,
        value: &Value,
    ) -> Result<Vec<u32>> {
        let name = format!("{case}.decoder_input_ids");
        let ids = match value.get("decoder_prompt").and_then(Value::as_array) {
            Some(pieces) => {
                let id = |piece: &Value| {
                    let piece = piece.as_str().unwrap_or_default();
                    let found = model.text.tokenizer.token_to_id(piece);
                    found.ok_or_else(|| {
                        Error::malformed("golden.json", format!("no token `{piece}`"))
                    })
                };
                pieces.iter().map(id).collect::<Result<Vec<_>>>()?
            }
            None => {
                let given = self.golden.read(&name)?;
                let given: Vec<i64> = bytemuck::pod_collect_to_vec(given.bytes());
                given.into_iter().map(|id| id as u32).collect()
            }
        };
        self.ids(name, &ids)?;
        Ok(ids)
    }

    /// The features of the checkpoint's front end.
    fn heard(&mut self, model: &LoadedSpeech, case: &str, samples: &[f32]) -> Result<Vec<f32>> {
        let front = model.front_end()?;
        let features = front.features(samples)?;
        let shape = [1, front.mels(), front.frames()];
        let values = features.to_f32_vec()?;
        self.floats(format!("{case}.input_features"), &shape, values.clone())?;
        Ok(values)
    }

    /// The front end of large-v3, at the columns that the golden names.
    fn wide_front_end(&mut self, dir: &Path, case: &str) -> Result<()> {
        let path = dir.join("input.wav");
        let bytes = std::fs::read(&path).map_err(|source| Error::Io {
            path: path.display().to_string(),
            source,
        })?;
        let front = Whisper::new(128)?;
        let features = front.features(&decode(&bytes)?.samples)?.to_f32_vec()?;
        let name = format!("{case}.columns");
        let columns: Vec<i64> = bytemuck::pod_collect_to_vec(self.golden.read(&name)?.bytes());
        let columns: Vec<u32> = columns.into_iter().map(|c| c as u32).collect();
        self.ids(name, &columns)?;
        let frames = front.frames();
        let at = |m: usize, c: u32| features.get(m * frames + c as usize).copied();
        let values = (0..front.mels()).flat_map(|m| columns.iter().filter_map(move |&c| at(m, c)));
        let shape = [front.mels(), columns.len()];
        self.floats(format!("{case}.values"), &shape, values.collect())?;
        let mean = features.iter().map(|&v| f64::from(v)).sum::<f64>() / features.len() as f64;
        self.floats(format!("{case}.mean"), &[1], vec![mean as f32])
    }
}
