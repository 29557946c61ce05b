//! `adapter_config.json`: rank and scale of each layer, and what is refused.

use crate::checkpoint::Fields;
use crate::{Error, Result};
use serde_json::{Map, Value};

/// Fields that change what is computed and are not served: refused unless absent, null, false or empty.
const REFUSED: &[&str] = &[
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "megatron_config",
    "velora_config",
    "monteclora_config",
];

/// Ways of starting a training that change the base weights, too: the adapter alone is not the difference.
const CHANGES_BASE: &[&str] = &["pissa", "olora", "corda", "loftq", "lora_ga"];

/// See the module's head.
pub(super) struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    rslora: bool,
    alpha_pattern: Map<String, Value>,
    rank_pattern: Map<String, Value>,
    /// The listed modules; empty if they are given as a pattern.
    targets: Vec<String>,
}

impl AdapterConfig {
    pub(super) fn read(name: &str, json: &[u8]) -> Result<Self> {
        let file = format!("{name}/adapter_config.json");
        let value: Value =
            serde_json::from_slice(json).map_err(|e| Error::malformed(&file, e.to_string()))?;
        let c = Fields(&value);
        let unsupported = |field: &str, value: &dyn std::fmt::Display, why: &str| {
            Err(Error::Unsupported(format!(
                "{file}: `{field}` {value}: {why}"
            )))
        };
        match c.text("peft_type") {
            Some("LORA") => {}
            Some(other) => return unsupported("peft_type", &other, "this version runs LORA"),
            None => return Err(Error::malformed(file, "`peft_type` is missing")),
        }
        for field in REFUSED {
            let set = match value.get(field) {
                None | Some(Value::Null | Value::Bool(false)) => false,
                Some(Value::Array(list)) => !list.is_empty(),
                Some(Value::Object(map)) => !map.is_empty(),
                Some(_) => true,
            };
            if set {
                let shown = value.get(field).map(Value::to_string).unwrap_or_default();
                return unsupported(field, &shown, "this version does not compute it");
            }
        }
        match c.text("bias") {
            None | Some("none") => {}
            Some(other) => {
                return unsupported("bias", &other, "trained biases are not read; expected none");
            }
        }
        if let Some(init) = c.text("init_lora_weights") {
            let init = init.to_lowercase();
            if CHANGES_BASE.iter().any(|way| init.starts_with(way)) {
                return unsupported(
                    "init_lora_weights",
                    &init,
                    "its base weights were changed, too; save the adapter converted to plain LoRA",
                );
            }
        }
        let pattern = |field: &str| match value.get(field) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(other) => Err(Error::malformed(
                &file,
                format!("`{field}` is {other}; expected an object"),
            )),
        };
        let lora_alpha = c.number("lora_alpha")?;
        let lora_alpha =
            lora_alpha.ok_or_else(|| Error::malformed(&file, "`lora_alpha` is missing"))?;
        let targets = value.get("target_modules").and_then(Value::as_array);
        let targets = targets.into_iter().flatten().filter_map(Value::as_str);
        Ok(AdapterConfig {
            r: c.size("r")?,
            lora_alpha,
            rslora: c.flag("use_rslora") == Some(true),
            alpha_pattern: pattern("alpha_pattern")?,
            rank_pattern: pattern("rank_pattern")?,
            targets: targets.map(str::to_owned).collect(),
        })
    }

    /// The rank of a module, and the field that says so.
    pub(super) fn rank(&self, name: &str, module: &str) -> Result<(&'static str, usize)> {
        match find(name, "rank_pattern", &self.rank_pattern, module)? {
            None => Ok(("r", self.r)),
            Some(v) => match v.as_u64() {
                Some(r) => Ok(("rank_pattern", r as usize)),
                None => Err(Error::malformed(
                    name,
                    format!("`rank_pattern` of `{module}` is {v}"),
                )),
            },
        }
    }

    /// `lora_alpha / R`, or `lora_alpha / √R` with `use_rslora`.
    pub(super) fn scale(&self, name: &str, module: &str, rank: usize) -> Result<f32> {
        let alpha = match find(name, "alpha_pattern", &self.alpha_pattern, module)? {
            None => self.lora_alpha,
            Some(v) => v.as_f64().ok_or_else(|| {
                Error::malformed(name, format!("`alpha_pattern` of `{module}` is {v}"))
            })?,
        };
        let rank = rank as f64;
        Ok((alpha / if self.rslora { rank.sqrt() } else { rank }) as f32)
    }

    /// Fails if a listed target has no tensors.
    pub(super) fn check_targets<'a>(
        &self,
        name: &str,
        modules: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<()> {
        let is = |module: &str, target: &str| {
            module
                .strip_suffix(target)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match self
            .targets
            .iter()
            .find(|t| !modules.clone().any(|m| is(m, t)))
        {
            None => Ok(()),
            Some(target) => Err(Error::malformed(
                name,
                format!(
                    "`target_modules` lists {target}, but adapter_model.safetensors has no tensors for it"
                ),
            )),
        }
    }
}

/// The entry of a pattern table for a module: keys are names or ends of names. PEFT allows regular expressions there; what is one
/// is refused, and so are keys of which two fit and differ.
fn find<'a>(
    name: &str,
    field: &str,
    table: &'a Map<String, Value>,
    module: &str,
) -> Result<Option<&'a Value>> {
    let mut found: Option<&Value> = None;
    for (key, value) in table {
        let plain = key.strip_prefix('^').unwrap_or(key);
        let anchored = plain.len() != key.len();
        let literal = plain
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !literal {
            return Err(Error::Unsupported(format!(
                "{name}: `{field}` has the regular expression `{key}`; this version reads module names"
            )));
        }
        let rest = module.strip_suffix(plain);
        let fits = rest.is_some_and(|rest| rest.is_empty() || (!anchored && rest.ends_with('.')));
        if !fits {
            continue;
        }
        if found.is_some_and(|other| other != value) {
            return Err(Error::malformed(
                name,
                format!("`{field}` has two entries for `{module}`"),
            ));
        }
        found = Some(value);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(change: impl FnOnce(&mut Value)) -> Result<AdapterConfig> {
        let mut value = json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none",
            "use_dora": false, "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {}});
        change(&mut value);
        AdapterConfig::read("x", value.to_string().as_bytes())
    }

    #[test]
    fn scales_follow_alpha_rank_and_rslora() {
        let m = "model.layers.0.self_attn.q_proj";
        let plain = read(|_| ()).expect("valid");
        assert_eq!(
            (
                plain.rank("x", m).expect("a rank").1,
                plain.scale("x", m, 8).expect("a scale")
            ),
            (8, 2.0)
        );
        let rs = read(|v| v["use_rslora"] = json!(true)).expect("valid");
        assert_eq!(rs.scale("x", m, 16).expect("a scale"), 4.0);
        let own = read(|v| {
            v["rank_pattern"] = json!({"layers.0.self_attn.q_proj": 4, "proj": 2});
            v["alpha_pattern"] =
                json!({"^model.layers.0.self_attn.q_proj": 6, "^layers.0.self_attn.q_proj": 99});
        })
        .expect("valid");
        assert_eq!(
            (
                own.rank("x", m).expect("a rank").1,
                own.scale("x", m, 4).expect("a scale")
            ),
            (4, 1.5)
        );
        assert_eq!(
            own.rank("x", "model.layers.1.self_attn.q_proj")
                .expect("a rank")
                .1,
            8
        );
    }

    #[test]
    fn what_is_not_computed_is_refused_by_its_name() {
        let cases = [
            ("peft_type", json!("IA3")),
            ("use_dora", json!(true)),
            ("bias", json!("lora_only")),
            ("modules_to_save", json!(["lm_head"])),
            ("trainable_token_indices", json!([1])),
            ("layer_replication", json!([[0, 2]])),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("r", json!(0)),
            ("lora_alpha", json!("x")),
            ("rank_pattern", json!([1])),
        ];
        for (field, value) in cases {
            let error = match read(|v| v[field] = value.clone()) {
                Ok(_) => panic!("{field} {value} was taken"),
                Err(e) => e.to_string(),
            };
            assert!(error.contains(field), "{field}: {error}");
        }
        let c = read(|v| v["alpha_pattern"] = json!({"layers.[01].q": 2})).expect("valid");
        assert!(
            c.scale("x", "a", 8)
                .is_err_and(|e| e.to_string().contains("regular expression"))
        );
        let c = read(|v| v["alpha_pattern"] = json!({"q_proj": 2, "a.q_proj": 3})).expect("valid");
        assert!(
            c.scale("x", "a.q_proj", 8)
                .is_err_and(|e| e.to_string().contains("two entries"))
        );
        let c = read(|_| ()).expect("valid");
        assert!(c.check_targets("x", ["model.q_proj"].into_iter()).is_ok());
        assert!(c.check_targets("x", ["model.xq_proj"].into_iter()).is_err());
    }
}
