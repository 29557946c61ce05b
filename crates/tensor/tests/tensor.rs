//! Tensors and views: conversions, reshaping, gathering.

use firelight_tensor::{DType, Error, Layout, Shape, Tensor};
use half::{bf16, f16};
use proptest::prelude::*;

fn ints(dtype: DType, bytes: &[u8]) -> Tensor {
    Tensor::new(dtype, &[bytes.len() / dtype.block_bytes()], bytes).unwrap()
}

#[test]
fn sizes_are_checked() {
    assert!(Tensor::new(DType::F32, &[2, 2], vec![0; 15]).is_err());
    assert!(Tensor::new(DType::F32, &[2, 2], vec![0; 17]).is_err());
    assert!(Tensor::from_f32(&[1.0, 2.0], &[3]).is_err());
    assert!(matches!(
        Tensor::new(DType::F32, &[1 << 40, 1 << 40], vec![]),
        Err(Error::Limit { .. })
    ));
    assert!(matches!(
        Tensor::zeros(DType::F32, &[1 << 60]),
        Err(Error::OutOfMemory { .. })
    ));
    assert_eq!(Tensor::zeros(DType::I8, &[0, 3]).unwrap().elements(), 0);
    let scalar = Tensor::from_f32(&[4.0], &[]).unwrap();
    assert_eq!(
        (scalar.elements(), scalar.to_f32_vec().unwrap()),
        (1, vec![4.0])
    );
}

#[test]
fn every_plain_type_becomes_f32() {
    let cases: &[(DType, Vec<u8>, &[f32])] = &[
        (DType::I8, vec![0x80, 0xff, 5], &[-128.0, -1.0, 5.0]),
        (DType::U8, vec![0x80, 0xff, 5], &[128.0, 255.0, 5.0]),
        (DType::Bool, vec![0, 1, 9], &[0.0, 1.0, 1.0]),
        (
            DType::I32,
            i32::MIN.to_le_bytes().to_vec(),
            &[-2_147_483_648.0],
        ),
        (
            DType::U32,
            u32::MAX.to_le_bytes().to_vec(),
            &[4_294_967_296.0],
        ),
        (
            DType::I64,
            (-(1i64 << 40)).to_le_bytes().to_vec(),
            &[-1_099_511_627_776.0],
        ),
        (
            DType::F16,
            f16::from_f32(-1.5).to_le_bytes().to_vec(),
            &[-1.5],
        ),
        (
            DType::BF16,
            bf16::from_f32(3.0).to_le_bytes().to_vec(),
            &[3.0],
        ),
    ];
    for (dtype, bytes, expected) in cases {
        assert_eq!(
            ints(*dtype, bytes).to_f32_vec().unwrap(),
            *expected,
            "{dtype}"
        );
    }
}

/// All 65,536 patterns of both half types, against the scalar conversion, at an odd count so that no chunk is whole.
#[test]
fn halves_convert_as_one_by_one() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).skip(2).collect();
    let wide = ints(DType::F16, &patterns).to_f32_vec().unwrap();
    let wide_b = ints(DType::BF16, &patterns).to_f32_vec().unwrap();
    for (i, bits) in (1..=u16::MAX).enumerate() {
        let (h, b) = (f16::from_bits(bits), bf16::from_bits(bits));
        assert!(
            wide[i] == h.to_f32() || (wide[i].is_nan() && h.is_nan()),
            "{h}"
        );
        assert!(
            wide_b[i] == b.to_f32() || (wide_b[i].is_nan() && b.is_nan()),
            "{b}"
        );
    }
    // And back: every half that is a number survives.
    for (dtype, wide) in [(DType::F16, wide), (DType::BF16, wide_b)] {
        let back = Tensor::from_f32(&wide, &[wide.len()])
            .unwrap()
            .cast(dtype)
            .unwrap();
        for ((a, b), v) in back.bytes().chunks(2).zip(patterns.chunks(2)).zip(&wide) {
            assert!(v.is_nan() || a == b, "{dtype} {v}");
        }
    }
}

#[test]
fn casts_keep_values_or_refuse() {
    let cast = |values: &[f32], dtype| {
        Tensor::from_f32(values, &[values.len()])
            .unwrap()
            .cast(dtype)
            .map(|t| t.to_f32_vec().unwrap())
    };
    assert_eq!(
        cast(&[1.9, -1.9, 0.0], DType::I32).unwrap(),
        [1.0, -1.0, 0.0]
    );
    assert_eq!(cast(&[-0.9, 255.9], DType::U8).unwrap(), [0.0, 255.0]);
    assert_eq!(
        cast(&[0.0, -0.0, f32::NAN, 0.1], DType::Bool).unwrap(),
        [0.0, 0.0, 1.0, 1.0]
    );
    assert_eq!(
        cast(&[1e6, 65_519.0], DType::F16).unwrap(),
        [f32::INFINITY, 65_504.0]
    );
    for (value, dtype) in [
        (256.0, DType::U8),
        (-1.0, DType::U32),
        (128.0, DType::I8),
        (f32::NAN, DType::I32),
        (f32::INFINITY, DType::I64),
        (9.3e18, DType::I64),
        (4_294_967_296.0, DType::U32),
    ] {
        let error = cast(&[0.0, value], dtype).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidInput(s) if s.contains("element 1")),
            "{error}"
        );
    }
    // Integers do not pass through f32.
    let big = (1i64 << 53) + 1;
    let t = ints(DType::I64, &big.to_le_bytes());
    assert!(t.cast(DType::I32).is_err());
    let small = ints(DType::I64, &16_777_217i64.to_le_bytes())
        .cast(DType::I32)
        .unwrap();
    assert_eq!(small.bytes(), 16_777_217i32.to_le_bytes());
    let bools = ints(DType::I32, &7i32.to_le_bytes())
        .cast(DType::Bool)
        .unwrap();
    assert_eq!(bools.bytes(), [1]);
    // Quantised to quantised goes by way of the values.
    let values: Vec<f32> = (0..64).map(|i| i as f32 - 32.0).collect();
    let q8 = Tensor::from_f32(&values, &[2, 32])
        .unwrap()
        .cast(DType::Q8_0)
        .unwrap();
    let q5 = q8.cast(DType::Q5_0).unwrap();
    assert_eq!((q5.dtype(), q5.bytes().len()), (DType::Q5_0, 44));
    assert!(cast(&[f32::NAN; 32], DType::Q4_0).is_err());
    assert!(cast(&[1.0; 33], DType::Q4_0).is_err());
}

#[test]
fn slices_share_and_stay_inside() {
    let t = Tensor::from_f32(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[3, 2]).unwrap();
    let part = t.slice_outer(1..3).unwrap();
    assert_eq!(
        (part.shape(), part.to_f32_vec().unwrap()),
        (&[2, 2][..], vec![2.0, 3.0, 4.0, 5.0])
    );
    assert_eq!(part.bytes().as_ptr(), t.bytes()[8..].as_ptr());
    assert_eq!(t.slice_outer(3..3).unwrap().elements(), 0);
    #[expect(clippy::reversed_empty_ranges)]
    let backwards = 2..1;
    assert!(t.slice_outer(2..4).is_err() && t.slice_outer(backwards).is_err());
    assert!(
        Tensor::from_f32(&[1.0], &[])
            .unwrap()
            .slice_outer(0..1)
            .is_err()
    );
    assert!(t.reshape(&[4]).is_err());
    assert_eq!(t.reshape(&[6, 1]).unwrap().shape(), [6, 1]);
}

#[test]
fn views() {
    let t = Tensor::from_f32(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]).unwrap();
    let get = |v: &Layout| t.gather(v).unwrap().to_f32_vec().unwrap();
    let l = t.layout();
    let turned = l.transpose(0, 1).unwrap();
    assert_eq!(get(&turned), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert!(!turned.is_contiguous() && turned.reshape(Shape::new([6]).unwrap()).is_err());
    assert_eq!(get(&turned.slice(0, 1..3).unwrap()), [1.0, 4.0, 2.0, 5.0]);
    let row = l.slice(0, 1..2).unwrap();
    assert!(row.is_contiguous());
    assert_eq!(
        get(&row.broadcast_to(Shape::new([2, 2, 3]).unwrap()).unwrap()),
        [3.0, 4.0, 5.0].repeat(4)
    );
    assert_eq!(get(&l.slice(1, 3..3).unwrap()), [0.0; 0]);
    assert_eq!(l.slice(1, 1..3).unwrap().index(&[1, 1]).unwrap(), 5);
    let shape = |d: &[usize]| Shape::new(d).unwrap();
    assert!(l.index(&[2, 0]).is_err() && l.index(&[0]).is_err());
    assert!(l.transpose(0, 2).is_err() && l.permute(&[0, 0]).is_err() && l.permute(&[0]).is_err());
    assert!(l.slice(2, 0..1).is_err() && l.slice(0, 0..3).is_err());
    assert!(l.broadcast_to(shape(&[3])).is_err() && l.broadcast_to(shape(&[4, 3])).is_err());
    assert!(l.reshape(shape(&[5])).is_err());
    assert!(Layout::new(shape(&[2, 2]), vec![1], 0).is_err());
    assert!(Layout::new(shape(&[2, 2]), vec![usize::MAX, 1], 0).is_err());
    assert!(Layout::new(shape(&[2]), vec![1], usize::MAX).is_err());
    let empty = Layout::new(shape(&[0, 5]), vec![usize::MAX, usize::MAX], usize::MAX).unwrap();
    assert_eq!(empty.slice(1, 2..4).unwrap().offsets().count(), 0);
    // A view may not reach beyond the tensor it is used on.
    assert!(
        t.gather(&Layout::new(shape(&[2]), vec![5], 1).unwrap())
            .is_err()
    );
    assert_eq!(
        get(&Layout::new(shape(&[2]), vec![5], 0).unwrap()),
        [0.0, 5.0]
    );
    let q = Tensor::zeros(DType::Q8_0, &[2, 32]).unwrap();
    assert!(matches!(q.gather(&q.layout()), Err(Error::Unsupported(_))));
}

proptest! {
    /// Offsets in bulk are the offsets one by one, after any chain of permute, slice and broadcast.
    #[test]
    fn offsets_follow_the_strides(
        dims in prop::collection::vec(0usize..4, 0..4),
        steps in prop::collection::vec((0u8..3, any::<u16>(), any::<u16>()), 0..6),
    ) {
        let shape = Shape::new(dims).unwrap();
        let elements = shape.elements();
        let mut l = Layout::contiguous(shape);
        for (kind, a, b) in steps {
            let (a, b, rank) = (usize::from(a), usize::from(b), l.shape().rank());
            l = match kind {
                0 if rank > 0 => l.transpose(a % rank, b % rank).unwrap(),
                1 if rank > 0 => {
                    let d = l.shape()[a % rank];
                    let start = b % (d + 1);
                    l.slice(a % rank, start..d.min(start + 2)).unwrap()
                }
                2 => {
                    let mut to: Vec<_> = l.shape().iter().map(|&d| if d == 1 { 2 } else { d }).collect();
                    if to.len() < 5 { to.insert(0, a % 3) }
                    l.broadcast_to(Shape::new(to).unwrap()).unwrap()
                }
                _ => l,
            };
        }
        l.check_within(elements).unwrap();
        let all: Vec<_> = l.offsets().collect();
        prop_assert_eq!(all.len(), l.shape().elements());
        for (n, &offset) in all.iter().enumerate() {
            let mut rest = n;
            let mut index = vec![0; l.shape().rank()];
            for axis in (0..index.len()).rev() {
                index[axis] = rest % l.shape()[axis];
                rest /= l.shape()[axis];
            }
            prop_assert_eq!(l.index(&index).unwrap(), offset);
            prop_assert!(offset < elements);
        }
        let consecutive = all.windows(2).all(|w| w[1] == w[0] + 1);
        if l.is_contiguous() {
            prop_assert!(consecutive);
        }
    }

    /// A shape broadcast against another is what both broadcast to.
    #[test]
    fn broadcasting_agrees(
        a in prop::collection::vec(0usize..3, 0..4),
        b in prop::collection::vec(0usize..3, 0..4),
    ) {
        let together = Shape::broadcast(&a, &b);
        prop_assert_eq!(together.is_ok(), Shape::broadcast(&b, &a).is_ok());
        if let Ok(shape) = together {
            for part in [a, b] {
                let l = Layout::contiguous(Shape::new(part).unwrap());
                prop_assert!(l.broadcast_to(shape.clone()).is_ok());
            }
        }
    }
}
