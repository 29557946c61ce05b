//! Flags that several commands take.

use crate::Usage;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use firelight_kernels::{DType, Isa};
use firelight_runtime::source::Options as SourceOptions;
use firelight_runtime::{DeviceChoice, Dtypes, EngineOptions, Rung, SampleSettings};

/// Which model.
#[derive(Args, Clone)]
pub(crate) struct ModelArgs {
    /// A name of `firelight models list`, a path to a .gguf file or a model's folder, or `hf:OWNER/REPO[/FILE][@REVISION]`
    /// [default: the first chat model of the list]
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
}

/// Which kind of device.
#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum DeviceKind {
    /// A real GPU that computes right, else the CPU
    #[default]
    Auto,
    /// A GPU, also one imitated by software
    Gpu,
    /// The CPU
    Cpu,
}

/// Where a model runs.
#[derive(Args, Clone)]
#[command(next_help_heading = "Device")]
pub(crate) struct EngineArgs {
    /// Which kind of device
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: DeviceKind,
    /// GPU adapter by its number in `firelight doctor`
    #[arg(long, value_name = "N")]
    pub(crate) adapter: Option<usize>,
    /// Exactly this rung of the ladder, nothing else
    #[arg(long, value_name = "NAME", value_parser = rungs())]
    pub(crate) rung: Option<Rung>,
    /// CPU threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// CPU instructions [default: the best this processor has]
    #[arg(long, value_name = "NAME", value_parser = isas())]
    pub(crate) isa: Option<Isa>,
    /// Keep f32 activations on the CPU, where quantised weights meet about 15 bits of them otherwise: slower
    #[arg(long)]
    pub(crate) exact: bool,
    /// On the CPU, round activations to 8 bits for quantised weights: faster, near ties may fall differently
    #[arg(long, conflicts_with = "exact")]
    pub(crate) fast: bool,
    /// Type of the keys and values kept of a conversation: f16 takes half the memory and time of long ones, q8 about a quarter, with
    /// a little less precision [default: f16 on GPUs that have it and, beside quantised matrices, on processors that do, else f32;
    /// with --exact f32 on processors]
    #[arg(long, value_name = "TYPE", value_parser = cache_types())]
    pub(crate) kv: Option<DType>,
    /// Convert matrices while loading: q4, q8, f16, f32, q4_k …, also by component: embed=f16,head=f32,default=q4
    /// [default: as in the file]
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Dtypes>,
}

fn rungs() -> impl TypedValueParser<Value = Rung> {
    PossibleValuesParser::new(Rung::ALL.map(Rung::name)).try_map(|name| name.parse::<Rung>())
}

fn cache_types() -> impl TypedValueParser<Value = DType> {
    PossibleValuesParser::new(["f32", "f16", "q8"]).map(|name| match name.as_str() {
        "f16" => DType::F16,
        "q8" => DType::Q8_0,
        _ => DType::F32,
    })
}

fn isas() -> impl TypedValueParser<Value = Isa> {
    PossibleValuesParser::new(Isa::available().into_iter().map(Isa::name))
        .try_map(|name| Isa::by_name(&name).ok_or("not a level of this processor"))
}

impl EngineArgs {
    /// Fails if the flags contradict each other.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        let gpu_rung = self.rung.map(Rung::is_gpu);
        let (cpu, gpu) = (
            matches!(self.device, DeviceKind::Cpu),
            matches!(self.device, DeviceKind::Gpu),
        );
        let contradiction = match (cpu, gpu, self.adapter, gpu_rung) {
            (true, _, Some(_), _) => "--device cpu has no --adapter",
            (true, _, _, Some(true)) => "--device cpu with a --rung of the GPU",
            (_, true, _, Some(false)) => "--device gpu with a --rung of the CPU",
            (_, _, Some(_), Some(false)) => "--adapter with a --rung of the CPU",
            _ => return Ok(()),
        };
        Err(Usage(contradiction.to_owned()))
    }

    /// The engine's options.
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions {
            device: match self.device {
                // Whoever names an adapter wants that one, and not the CPU where it is missing.
                DeviceKind::Auto if self.adapter.is_some() => DeviceChoice::Gpu,
                DeviceKind::Auto => DeviceChoice::Auto,
                DeviceKind::Gpu => DeviceChoice::Gpu,
                DeviceKind::Cpu => DeviceChoice::Cpu,
            },
            adapter: self.adapter,
            rung: self.rung,
            threads: self.threads.map(usize::from),
            isa: self.isa,
            exact: self.exact,
            kv: self.kv,
            fast: self.fast,
            dtypes: self.dtype.unwrap_or_default(),
            cache_dir: SourceOptions::from_env().ok().map(|o| o.cache_dir),
            ..EngineOptions::default()
        }
    }
}

/// How tokens are chosen.
#[derive(Args, Clone)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// How much chance: 0 always takes the most likely token; small models wander above 0.5
    #[arg(long, value_name = "T", default_value_t = 0.2)]
    pub(crate) temperature: f32,
    /// Always the most likely token, the same as --temperature 0
    #[arg(long)]
    pub(crate) greedy: bool,
    /// Choose among this many most likely tokens; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: u32,
    /// Choose among the fewest tokens with at least this probability together
    #[arg(long, value_name = "P", default_value_t = 0.9)]
    pub(crate) top_p: f32,
    /// Choose among tokens at least this times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) min_p: f32,
    /// Make tokens that were there before, in the question too, less likely; 1: off. 1.1 helps where answers go in circles
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub(crate) repetition_penalty: f32,
    /// The same seed gives the same answer on the same device [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

impl SamplingArgs {
    /// The settings; a seed is drawn unless one was given.
    pub(crate) fn settings(&self) -> SampleSettings {
        let temperature = if self.greedy { 0.0 } else { self.temperature };
        SampleSettings {
            temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.unwrap_or_else(random_seed),
        }
    }
}

/// A seed short enough to be typed again.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u8(0);
    hasher.finish() >> 32
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        sampling: super::SamplingArgs,
        #[command(flatten)]
        engine: super::EngineArgs,
    }

    fn settings(args: &[&str]) -> firelight_runtime::SampleSettings {
        Flags::parse_from(std::iter::once(&"x").chain(args))
            .sampling
            .settings()
    }

    #[test]
    fn greedy_is_plain_greedy() {
        for args in [
            &["--greedy"][..],
            &["--temperature", "0"],
            &["--greedy", "--temperature", "1"],
        ] {
            let s = settings(args);
            assert_eq!((s.temperature, s.repetition_penalty), (0.0, 1.0));
        }
        assert_eq!(
            settings(&["--greedy", "--repetition-penalty", "1.2"]).repetition_penalty,
            1.2
        );
        assert_eq!(settings(&[]).temperature, 0.2);
    }

    #[test]
    fn seeds_differ_unless_given() {
        assert_eq!(settings(&["--seed", "18446744073709551615"]).seed, u64::MAX);
        let seeds: Vec<u64> = (0..8).map(|_| settings(&[]).seed).collect();
        assert!(seeds.iter().any(|s| *s != seeds[0]), "{seeds:?}");
    }

    #[test]
    fn every_rung_can_be_asked_for() {
        for rung in firelight_runtime::Rung::ALL {
            let flags = Flags::parse_from(["x", "--rung", rung.name()]);
            assert_eq!(flags.engine.options().rung, Some(rung));
        }
        assert!(Flags::try_parse_from(["x", "--rung", "gpu-f64"]).is_err());
        assert!(Flags::try_parse_from(["x", "--threads", "0"]).is_err());
    }
}
