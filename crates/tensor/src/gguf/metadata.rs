//! Metadata by key, with getters that convert only where nothing is lost.

use super::value::{Array, StrArray, Value};
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;

/// The key-value part of a GGUF file. Dereferences to its map.
///
/// A getter gives `None` for a key that is not there and an error for a value of another type. Integer getters take any
/// integer type whose value fits; float getters take both float types where the value survives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(pub(super) BTreeMap<String, Value>);

impl Deref for Metadata {
    type Target = BTreeMap<String, Value>;

    fn deref(&self) -> &BTreeMap<String, Value> {
        &self.0
    }
}

impl FromIterator<(String, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        Metadata(entries.into_iter().collect())
    }
}

/// A type that a metadata value can be read as; see [`Metadata::get_as`].
pub trait FromValue<'a>: Sized {
    /// What was expected, in words.
    const EXPECTED: &'static str;

    /// The value as this type, or `None` if it is another type or does not fit.
    fn from_value(value: &'a Value) -> Option<Self>;
}

impl Metadata {
    /// The value of `key` as `T`: any integer or float type, `bool`, `&str`, `&StrArray`, or `Cow` of a number slice.
    ///
    /// # Errors
    /// `InvalidInput` naming the key, what was expected and what is there.
    pub fn get_as<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        T::from_value(value).map(Some).ok_or_else(|| {
            let found = match value {
                Value::Array(a) => format!("an array of {} {}", a.len(), a.type_name()),
                Value::String(s) => format!("a string of {} bytes", s.len()),
                other => format!("{other:?}"),
            };
            Error::invalid(format!(
                "metadata `{key}`: expected {}, found {found}",
                T::EXPECTED
            ))
        })
    }

    /// As [`Metadata::get_as`], for a key that must be there.
    ///
    /// # Errors
    /// `InvalidInput` also if the key is missing.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.get_as(key)?
            .ok_or_else(|| Error::invalid(format!("metadata `{key}` ({}) is missing", T::EXPECTED)))
    }
}

macro_rules! getters {
    ($($name:ident -> $t:ty, $doc:literal;)*) => {
        impl Metadata {$(
            #[doc = $doc]
            ///
            /// # Errors
            /// `InvalidInput` if the value has another type or does not fit.
            pub fn $name(&self, key: &str) -> Result<Option<$t>> {
                self.get_as(key)
            }
        )*}
    };
}
getters! {
    get_u32 -> u32, "Any integer that fits `u32`.";
    get_i32 -> i32, "Any integer that fits `i32`.";
    get_u64 -> u64, "Any integer that fits `u64`.";
    get_i64 -> i64, "Any integer that fits `i64`.";
    get_usize -> usize, "Any integer that fits `usize`.";
    get_f32 -> f32, "A float; an f64 is rounded.";
    get_f64 -> f64, "A float of either width.";
    get_bool -> bool, "A bool.";
    get_str -> &str, "A string.";
    get_array_str -> &StrArray, "An array of strings.";
    get_array_f32 -> Cow<'_, [f32]>, "An array of floats, borrowed if they are f32.";
    get_array_i32 -> Cow<'_, [i32]>, "An array of integers that all fit `i32`, borrowed if they are i32.";
    get_array_u32 -> Cow<'_, [u32]>, "An array of integers that all fit `u32`, borrowed if they are u32.";
    get_array_bool -> &[bool], "An array of bools.";
}

macro_rules! integer {
    ($($t:ident $variant:ident),*) => {$(
        impl FromValue<'_> for $t {
            const EXPECTED: &'static str = concat!("an integer that fits ", stringify!($t));
            fn from_value(value: &Value) -> Option<Self> {
                match *value {
                    Value::U8(v) => v.try_into().ok(),
                    Value::I8(v) => v.try_into().ok(),
                    Value::U16(v) => v.try_into().ok(),
                    Value::I16(v) => v.try_into().ok(),
                    Value::U32(v) => v.try_into().ok(),
                    Value::I32(v) => v.try_into().ok(),
                    Value::U64(v) => v.try_into().ok(),
                    Value::I64(v) => v.try_into().ok(),
                    _ => None,
                }
            }
        }
        integer!(@array $t $variant);
    )*};
    (@array usize $v:ident) => {};
    (@array $t:ident $variant:ident) => {
        impl<'a> FromValue<'a> for Cow<'a, [$t]> {
            const EXPECTED: &'static str = concat!("an array of integers that fit ", stringify!($t));
            #[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion)]
            fn from_value(value: &'a Value) -> Option<Self> {
                fn all<S: Copy, T: TryFrom<S>>(v: &[S]) -> Option<Vec<T>> {
                    v.iter().map(|&x| T::try_from(x).ok()).collect()
                }
                let Value::Array(array) = value else { return None };
                if let Array::$variant(v) = array {
                    return Some(Cow::Borrowed(v));
                }
                match array {
                    Array::U8(v) => all(v),
                    Array::I8(v) => all(v),
                    Array::U16(v) => all(v),
                    Array::I16(v) => all(v),
                    Array::U32(v) => all(v),
                    Array::I32(v) => all(v),
                    Array::U64(v) => all(v),
                    Array::I64(v) => all(v),
                    _ => None,
                }.map(Cow::Owned)
            }
        }
    };
}
integer!(u8 U8, i8 I8, u16 U16, i16 I16, u32 U32, i32 I32, u64 U64, i64 I64, usize Usize);

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a float";

    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) => narrow(v),
            _ => None,
        }
    }
}

impl FromValue<'_> for f64 {
    const EXPECTED: &'static str = "a float";

    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }
}

/// Rounds, unless a finite value would become infinite.
fn narrow(v: f64) -> Option<f32> {
    let narrow = v as f32;
    (narrow.is_finite() || !v.is_finite()).then_some(narrow)
}

impl<'a> FromValue<'a> for Cow<'a, [f32]> {
    const EXPECTED: &'static str = "an array of floats";

    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(Array::F32(v)) => Some(Cow::Borrowed(v)),
            Value::Array(Array::F64(v)) => v
                .iter()
                .map(|&x| narrow(x))
                .collect::<Option<_>>()
                .map(Cow::Owned),
            _ => None,
        }
    }
}

macro_rules! exact {
    ($($t:ty, $pattern:pat => $out:expr, $expected:literal;)*) => {$(
        impl<'a> FromValue<'a> for $t {
            const EXPECTED: &'static str = $expected;
            fn from_value(value: &'a Value) -> Option<Self> {
                match value { $pattern => Some($out), _ => None }
            }
        }
    )*};
}
exact! {
    bool, Value::Bool(v) => *v, "a bool";
    &'a str, Value::String(v) => v.as_str(), "a string";
    &'a Array, Value::Array(v) => v, "an array";
    &'a StrArray, Value::Array(Array::String(v)) => v, "an array of strings";
    &'a [bool], Value::Array(Array::Bool(v)) => v.as_slice(), "an array of bools";
}
