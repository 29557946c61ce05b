//! The pass: prove, time, pick.

use super::time::Timed;
use super::{On, Tunable, Tuning};
use crate::harness::{Operands, planned, record_case, run_recorded, wanted};
use crate::{Case, Device, Error, Kernel, Recorder, Result};
use firelight_tensor::DType;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Rounds of timing: each way once a round, so that whatever else the machine does meets all of them.
const ROUNDS: usize = 7;
/// What a choice must win, on average over its calls, to be taken in place of the default.
const WORTH: f64 = 1.03;
/// Cases with more bytes than this are not run: smaller ones show the same.
const LARGE: u64 = 4 << 20;

/// What is tuned, and for how long.
pub struct TuneOptions<'a> {
    /// The kernels whose numbers are chosen, and whose cases each choice is proved by.
    pub kernels: &'a [&'static dyn Kernel],
    /// After this long nothing new is begun; what is not measured by then keeps its default.
    pub budget: Duration,
    /// Asked between two measurements; `false` ends the pass with what it has.
    pub go_on: &'a dyn Fn() -> bool,
    /// Hears what is measured next: how many are done, how many there are, which.
    pub progress: &'a mut dyn FnMut(usize, usize, &str),
}

/// What was found out about one number for one element type.
#[derive(Clone, Debug)]
pub struct Pick {
    /// Which number.
    pub tunable: &'static Tunable,
    /// For which element type.
    pub dtype: DType,
    /// The choice taken.
    pub value: u32,
    /// Speed of each right choice as a multiple of the default's, the geometric mean over the calls timed. Choices that lead to the
    /// same dispatches are one.
    pub speeds: Vec<(u32, f64)>,
    /// Choices that answered wrong, with what was wrong: they were not timed.
    pub wrong: Vec<(u32, String)>,
}

impl Pick {
    /// How many times as fast as the default the choice is.
    pub fn gain(&self) -> f64 {
        let own = self.speeds.iter().find(|(v, _)| *v == self.value);
        own.map_or(1.0, |(_, speed)| *speed)
    }
}

/// What a pass found.
#[derive(Clone, Debug, Default)]
pub struct Tuned {
    /// The choices that are not the default.
    pub tuning: Tuning,
    /// Everything that was measured.
    pub picks: Vec<Pick>,
    /// What was left out for lack of time: the number and the element type.
    pub left: Vec<(&'static str, DType)>,
}

/// A call to time by, with its operands on the device.
struct Trial {
    case: Case,
    ops: Operands,
}

/// Chooses each tunable of `options.kernels` for `device`, one after the other, on top of what was chosen before.
///
/// # Errors
/// `Device` if the device is lost. A choice that answers wrong is no error, but noted in its [`Pick`].
pub async fn tune(device: &Device, options: TuneOptions<'_>) -> Result<Tuned> {
    let TuneOptions {
        kernels,
        budget,
        go_on,
        progress,
    } = options;
    let begin = Instant::now();
    let in_time = || go_on() && begin.elapsed() < budget;
    let mut questions = Vec::new();
    for &kernel in kernels {
        for (tunable, cases) in kernel.tunables() {
            if tunable.on
                == (if device.is_gpu() {
                    On::Gpu
                } else {
                    On::Threads
                })
                && has_threads(device)
            {
                questions.extend(
                    by_dtype(device, tunable, cases)
                        .into_iter()
                        .map(|(d, c)| (kernel, tunable, d, c)),
                );
            }
        }
    }
    let mut found = Tuned {
        tuning: device.caps().tuning.clone(),
        ..Tuned::default()
    };
    let all = questions.len();
    let mut proven = HashMap::new();
    for (at, (kernel, tunable, dtype, cases)) in questions.into_iter().enumerate() {
        progress(at, all, &format!("{} for {dtype}", tunable.name));
        let mut question = Question {
            device,
            kernels,
            kernel,
            tunable,
            dtype,
            base: &found.tuning,
            proven: &mut proven,
        };
        let answer = question.answer(cases, &in_time).await?;
        match answer {
            Some(pick) => {
                if pick.value != found.tuning.get(tunable, dtype) {
                    found.tuning = found.tuning.with(tunable, dtype, pick.value)?;
                }
                found.picks.push(pick);
            }
            None => found.left.push((tunable.name, dtype)),
        }
    }
    Ok(found)
}

fn has_threads(device: &Device) -> bool {
    device.as_cpu().is_none_or(|cpu| cpu.pool.threads() > 1)
}

/// The cases by the element type that the number is chosen for, in order.
fn by_dtype(device: &Device, tunable: &Tunable, cases: Vec<Case>) -> Vec<(DType, Vec<Case>)> {
    let mut classes: Vec<(DType, Vec<Case>)> = Vec::new();
    for case in cases.into_iter().filter(|c| wanted(device, c)) {
        let Some((dtype, ..)) = case.operands.get(tunable.operand) else {
            continue;
        };
        match classes.iter_mut().find(|(d, _)| d == dtype) {
            Some((_, list)) => list.push(case),
            None => classes.push((*dtype, vec![case])),
        }
    }
    classes
}

/// One number for one element type.
struct Question<'a> {
    device: &'a Device,
    kernels: &'a [&'static dyn Kernel],
    kernel: &'static dyn Kernel,
    tunable: &'static Tunable,
    dtype: DType,
    base: &'a Tuning,
    /// What cases showed, by kernel, case and way.
    proven: &'a mut HashMap<String, Option<String>>,
}

impl Question<'_> {
    /// `None`: the time is over.
    async fn answer(
        &mut self,
        cases: Vec<Case>,
        in_time: &dyn Fn() -> bool,
    ) -> Result<Option<Pick>> {
        let default = self.base.get(self.tunable, self.dtype);
        let mut trials = Vec::new();
        for case in cases {
            let ops = Operands::new(self.device, &case)?;
            trials.push(Trial { case, ops });
        }
        let others = self
            .tunable
            .choices
            .iter()
            .copied()
            .filter(|&v| v != default);
        let (mut right, mut wrong) = (Vec::<(u32, Vec<String>)>::new(), Vec::new());
        for value in std::iter::once(default).chain(others) {
            if !in_time() {
                return Ok(None);
            }
            let device = self
                .device
                .tuned(self.base.with(self.tunable, self.dtype, value)?);
            let mut ways = Vec::new();
            for trial in &trials {
                ways.push(self.way(&device, self.kernel, value, &trial.case, &trial.ops)?);
            }
            if right.iter().any(|(_, known)| *known == ways) {
                continue;
            }
            match self.faults(&device, value, &trials).await? {
                None => right.push((value, ways)),
                Some(what) => wrong.push((value, what)),
            }
        }
        let mut timed: HashMap<(usize, String), Timed> = HashMap::new();
        for (value, ways) in right.iter().filter(|_| right.len() > 1) {
            let device = self
                .device
                .tuned(self.base.with(self.tunable, self.dtype, *value)?);
            for (at, (trial, way)) in trials.iter().zip(ways).enumerate() {
                if let std::collections::hash_map::Entry::Vacant(slot) =
                    timed.entry((at, way.clone()))
                {
                    slot.insert(Timed::new(&device, self.kernel, &trial.case, &trial.ops).await?);
                }
            }
        }
        for _ in 0..ROUNDS {
            for one in timed.values_mut() {
                if !in_time() {
                    return Ok(None);
                }
                one.round().await?;
            }
        }
        Ok(Some(self.pick(default, right, wrong, &timed)))
    }

    fn pick(
        &self,
        default: u32,
        right: Vec<(u32, Vec<String>)>,
        wrong: Vec<(u32, String)>,
        timed: &HashMap<(usize, String), Timed>,
    ) -> Pick {
        // Logarithm of the time, the mean over the calls.
        let mean = |ways: &[String]| {
            let times = ways
                .iter()
                .enumerate()
                .filter_map(|(at, way)| timed.get(&(at, way.clone())));
            times.map(|t| t.best.ln()).sum::<f64>() / ways.len().max(1) as f64
        };
        let first = right.first().map_or(0.0, |(_, ways)| mean(ways));
        let speeds: Vec<(u32, f64)> = right
            .iter()
            .map(|(v, ways)| (*v, (first - mean(ways)).exp()))
            .collect();
        let best = speeds.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        // A default that answers wrong is left for whatever is right.
        let kept = if wrong.iter().any(|(v, _)| *v == default) {
            speeds.first().map_or(default, |s| s.0)
        } else {
            default
        };
        let value = best
            .filter(|(_, speed)| *speed >= WORTH)
            .map_or(kept, |(v, _)| v);
        Pick {
            tunable: self.tunable,
            dtype: self.dtype,
            value,
            speeds,
            wrong,
        }
    }

    /// What a choice gets wrong: of the calls to time by, and of all kernels' cases that it changes.
    async fn faults(
        &mut self,
        device: &Device,
        value: u32,
        trials: &[Trial],
    ) -> Result<Option<String>> {
        for trial in trials {
            let fault = self.fault(device, self.kernel, value, &trial.case).await?;
            if fault.is_some() {
                return Ok(fault);
            }
        }
        let changed = self.changed(device, value)?;
        for (kernel, case) in &changed {
            let fault = self.fault(device, *kernel, value, case).await?;
            if fault.is_some() {
                return Ok(fault);
            }
        }
        Ok(None)
    }

    /// The cases that run otherwise with this choice than without, on the CPU those of the number's own kernel.
    fn changed(&self, device: &Device, value: u32) -> Result<Vec<(&'static dyn Kernel, Case)>> {
        let before = self.device.tuned(self.base.clone());
        let mut changed = Vec::new();
        for &kernel in self.kernels {
            let own = kernel.name() == self.kernel.name();
            if !device.is_gpu() && !own {
                continue;
            }
            let cases = kernel.cases().into_iter();
            for case in cases.filter(|c| !c.bench && c.bytes <= LARGE && wanted(device, c)) {
                if !case.operands.iter().any(|(d, ..)| *d == self.dtype) {
                    continue;
                }
                let differs = if !device.is_gpu() {
                    true
                } else if kernel.recorded().is_some() {
                    let ops = Operands::new(device, &case)?;
                    let old = self.way(&before, kernel, value, &case, &ops)?;
                    old != self.way(device, kernel, value, &case, &ops)?
                } else {
                    planned(kernel, &case, before.caps())? != planned(kernel, &case, device.caps())?
                };
                if differs {
                    changed.push((kernel, case));
                }
            }
        }
        Ok(changed)
    }

    /// What is wrong with a case run this way; each is run once.
    async fn fault(
        &mut self,
        device: &Device,
        kernel: &'static dyn Kernel,
        value: u32,
        case: &Case,
    ) -> Result<Option<String>> {
        let ops = Operands::new(device, case)?;
        let way = self.way(device, kernel, value, case, &ops)?;
        let key = format!("{} `{}` {way}", kernel.name(), case.name);
        if let Some(known) = self.proven.get(&key) {
            return Ok(known.clone());
        }
        let fault = match run_recorded(device, kernel, case).await {
            Ok(outcome) => outcome
                .failure
                .map(|what| format!("{} `{}`: {what}", kernel.name(), case.name)),
            Err(e) if device.lost().is_some() => return Err(e),
            Err(e) => Some(format!("{} `{}`: {e}", kernel.name(), case.name)),
        };
        self.proven.insert(key, fault.clone());
        Ok(fault)
    }

    /// What is run for a call, as text; on the CPU, where plans do not say, the choice itself.
    fn way(
        &self,
        device: &Device,
        kernel: &'static dyn Kernel,
        value: u32,
        case: &Case,
        ops: &Operands,
    ) -> Result<String> {
        if !device.is_gpu() {
            return Ok(format!("{} = {value}", self.tunable.name));
        }
        let mut rec = Recorder::new(device);
        record_case(&mut rec, kernel, &ops.refs(), &case.params)?;
        let mut text = String::new();
        for plan in rec.plans() {
            let _ = write!(text, "{plan:?}");
        }
        Ok(text)
    }
}

/// Runs every case of `kernels` that runs otherwise with `value`; gives how many those were.
///
/// # Errors
/// `InvalidInput` with what was wrong, or for a number that is no choice; `Device`.
pub async fn prove(
    device: &Device,
    kernels: &[&'static dyn Kernel],
    tunable: &'static Tunable,
    dtype: DType,
    value: u32,
) -> Result<usize> {
    let base = Tuning::NONE;
    let owner = kernels
        .iter()
        .find(|k| k.tunables().iter().any(|(t, _)| t.name == tunable.name));
    let kernel = *owner
        .ok_or_else(|| Error::invalid(format!("{} is of none of these kernels", tunable.name)))?;
    let mut proven = HashMap::new();
    let mut question = Question {
        device,
        kernels,
        kernel,
        tunable,
        dtype,
        base: &base,
        proven: &mut proven,
    };
    let tuned = device.tuned(base.with(tunable, dtype, value)?);
    let changed = question.changed(&tuned, value)?;
    for (kernel, case) in &changed {
        if let Some(what) = question.fault(&tuned, *kernel, value, case).await? {
            return Err(Error::invalid(format!(
                "{} = {value} for {dtype}: {what}",
                tunable.name
            )));
        }
    }
    Ok(changed.len())
}
