//! The formulas, naive.
use super::Params;

pub(super) fn run(p: &Params, values: &mut [Vec<f64>]) {
    let [x, spans, y] = values else { return };
    let d = p.d as usize;
    for i in 0..p.b as usize {
        let (begin, end) = (spans[2 * i] as usize, (spans[2 * i + 1] as usize).min(p.rows as usize));
        for c in 0..d {
            let column: Vec<f64> = (begin..end).map(|r| x[r * d + c]).collect();
            let n = column.len() as f64;
            let sum: f64 = column.iter().sum();
            let weighted: f64 = column.iter().zip(1..).map(|(x, w)| x * f64::from(w)).sum();
            let weights: f64 = (1..=column.len()).map(|w| w as f64).sum();
            y[i * d + c] = match p.pool {
                _ if column.is_empty() => 0.0,
                0 => sum / n,
                1 => sum / n.sqrt(),
                2 => column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                _ => weighted / weights,
            };
        }
    }
}
