//! Comparing computed values with expected ones, so that nothing slips through.
//!
//! An element passes if `|actual − expected| ≤ atol + rtol·|expected|`, evaluated in f64. NaN passes only against NaN and
//! an infinity only against itself; another length is a failure of its own. The test is written as "fails unless it
//! passes", so that a NaN in the arithmetic fails.

use std::fmt;

/// How far apart two values may be: `atol + rtol·|expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// The absolute part.
    pub atol: f64,
    /// The part relative to the expected value.
    pub rtol: f64,
}

impl Tolerance {
    /// Bit-for-bit equal, save that +0 equals −0.
    pub const EXACT: Tolerance = Tolerance {
        atol: 0.0,
        rtol: 0.0,
    };

    /// `atol + rtol·|expected|`.
    pub const fn new(atol: f64, rtol: f64) -> Self {
        Tolerance { atol, rtol }
    }
}

/// Values to compare with: f32 or f64.
pub trait Expected: Copy {
    /// As f64, exactly.
    fn to_f64(self) -> f64;
}

impl Expected for f32 {
    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Expected for f64 {
    fn to_f64(self) -> f64 {
        self
    }
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Elements compared: the shorter of both lengths.
    pub elements: usize,
    /// Set to (actual, expected) if the lengths differ.
    pub length_mismatch: Option<(usize, usize)>,
    /// The largest `|actual − expected|` over elements finite on both sides.
    pub max_abs: f64,
    /// Where that was.
    pub max_abs_at: usize,
    /// The largest `|actual − expected| / |expected|` over elements finite on both sides and not expected to be 0.
    pub max_rel: f64,
    /// Elements beyond the tolerance, those of another class included.
    pub mismatches: usize,
    /// Elements whose class differs: NaN, +∞, −∞ or finite.
    pub class_mismatches: usize,
    /// The first element beyond the tolerance.
    pub first_bad: Option<Mismatch>,
}

/// One element that differs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    /// Its index in the flat data.
    pub index: usize,
    /// What was computed.
    pub actual: f64,
    /// What was expected.
    pub expected: f64,
}

impl Comparison {
    /// True if every element is within the tolerance and the lengths agree.
    pub fn passed(&self) -> bool {
        self.mismatches == 0 && self.length_mismatch.is_none()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((actual, expected)) = self.length_mismatch {
            write!(f, "{actual} values where {expected} were expected; ")?;
        }
        write!(
            f,
            "{} of {} beyond the tolerance, ",
            self.mismatches, self.elements
        )?;
        if self.class_mismatches > 0 {
            write!(
                f,
                "{} of another class (NaN, infinite, finite), ",
                self.class_mismatches
            )?;
        }
        write!(f, "largest difference {:.3e} absolute", self.max_abs)?;
        write!(
            f,
            " (at {}), {:.3e} relative",
            self.max_abs_at, self.max_rel
        )?;
        if let Some(Mismatch {
            index,
            actual,
            expected,
        }) = self.first_bad
        {
            write!(f, "; first at {index}: {actual} for {expected}")?;
        }
        Ok(())
    }
}

/// Compares `actual` with `expected`, element by element.
pub fn compare<E: Expected>(actual: &[f32], expected: &[E], tol: Tolerance) -> Comparison {
    let mut c = Comparison {
        elements: actual.len().min(expected.len()),
        length_mismatch: (actual.len() != expected.len()).then_some((actual.len(), expected.len())),
        max_abs: 0.0,
        max_abs_at: 0,
        max_rel: 0.0,
        mismatches: 0,
        class_mismatches: 0,
        first_bad: None,
    };
    for (index, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let (a, e) = (f64::from(a), e.to_f64());
        let ok = if a.is_finite() && e.is_finite() {
            let err = (a - e).abs();
            if err > c.max_abs {
                (c.max_abs, c.max_abs_at) = (err, index);
            }
            if e != 0.0 {
                c.max_rel = c.max_rel.max(err / e.abs());
            }
            err <= tol.atol + tol.rtol * e.abs()
        } else {
            let same = a == e || (a.is_nan() && e.is_nan());
            c.class_mismatches += usize::from(!same);
            same
        };
        if !ok {
            c.mismatches += 1;
            c.first_bad.get_or_insert(Mismatch {
                index,
                actual: a,
                expected: e,
            });
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INF: f32 = f32::INFINITY;

    #[test]
    fn what_must_pass() {
        let values = [
            0.0,
            -0.0,
            1.5,
            f32::NAN,
            INF,
            -INF,
            f32::MIN_POSITIVE,
            f32::MAX,
        ];
        assert!(compare(&values, &values, Tolerance::EXACT).passed());
        assert!(compare::<f32>(&[], &[], Tolerance::EXACT).passed());
        assert!(compare(&[-0.0], &[0.0f32], Tolerance::EXACT).passed());
        assert!(compare(&[1.01], &[1.0f64], Tolerance::new(0.0, 0.011)).passed());
        assert!(compare(&[0.01], &[0.0f64], Tolerance::new(0.01, 0.0)).passed());
    }

    /// Every way a difference could slip through a comparison.
    #[test]
    fn what_must_fail() {
        let wide = Tolerance::new(1e30, 1e30);
        let bad: &[(&[f32], &[f32], Tolerance)] = &[
            (&[f32::NAN], &[0.0], wide),
            (&[0.0], &[f32::NAN], wide),
            (&[INF], &[0.0], wide),
            (&[0.0], &[INF], wide),
            (&[INF], &[-INF], wide),
            (&[f32::NAN], &[INF], wide),
            (&[INF], &[f32::NAN], wide),
            (&[1.0, 2.0], &[1.0], wide),
            (&[1.0], &[1.0, 2.0], wide),
            (&[], &[1.0], wide),
            // Nothing is relative to an expected 0.
            (&[1e-20], &[0.0], Tolerance::new(0.0, 1e30)),
            (&[1.0], &[1.0000001], Tolerance::EXACT),
            (&[1.0], &[1.0], Tolerance::new(f64::NAN, 0.0)),
            (&[1.0], &[1.0], Tolerance::new(-1.0, 0.0)),
        ];
        for (i, (actual, expected, tol)) in bad.iter().enumerate() {
            let c = compare(actual, expected, *tol);
            assert!(!c.passed(), "case {i}: {c}");
        }
    }

    #[test]
    fn what_is_reported() {
        let actual = [1.0, 2.5, f32::NAN, 4.0, 9.0];
        let expected = [1.0, 2.0, 3.0, 4.0, 8.0];
        let c = compare(&actual, &expected, Tolerance::new(0.1, 0.0));
        assert_eq!((c.mismatches, c.class_mismatches, c.elements), (3, 1, 5));
        assert_eq!((c.max_abs, c.max_abs_at, c.max_rel), (1.0, 4, 0.25));
        assert_eq!(c.first_bad.unwrap().index, 1);
        let text = c.to_string();
        assert!(
            text.contains("3 of 5") && text.contains("first at 1"),
            "{text}"
        );
    }

    proptest! {
        /// Whatever is nudged by more than the tolerance is found, and only that.
        #[test]
        fn finds_exactly_what_was_nudged(
            mut values in prop::collection::vec(-1e3f32..1e3, 1..50),
            at in 0usize..1000,
            by in prop_oneof![Just(0.0f32), 0.5f32..2.0, -2.0f32..-0.5],
        ) {
            let expected = values.clone();
            let at = at % values.len();
            values[at] += by;
            let c = compare(&values, &expected, Tolerance::new(1e-3, 1e-6));
            prop_assert_eq!(c.passed(), by == 0.0);
            prop_assert_eq!(c.first_bad.map(|b| b.index), (by != 0.0).then_some(at));
        }
    }
}
