//! NumPy's `.npy` files, format 1.0. Source: `numpy.lib.format`.

/// A file with an f32 matrix of rows of `cols` numbers.
pub(crate) fn matrix<'a>(cols: usize, rows: impl ExactSizeIterator<Item = &'a [f32]>) -> Vec<u8> {
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {cols}), }}",
        rows.len()
    );
    // Ten bytes come before it; data start at a multiple of 64.
    let total = (10 + header.len() + 1).next_multiple_of(64);
    header.extend(std::iter::repeat_n(' ', total - 10 - header.len() - 1));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    for row in rows {
        file.extend(row.iter().flat_map(|v| v.to_le_bytes()));
    }
    file
}

#[cfg(test)]
mod tests {
    #[test]
    fn header_and_data_are_where_numpy_looks() {
        let rows: [&[f32]; 2] = [&[1.0, 2.0, 3.0], &[-1.0, 0.5, 0.0]];
        let file = super::matrix(3, rows.into_iter());
        assert_eq!(&file[..8], b"\x93NUMPY\x01\x00");
        let len = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert!((10 + len).is_multiple_of(64));
        assert!(file[..10 + len].ends_with(b"\n"));
        let text = std::str::from_utf8(&file[10..10 + len]).expect("ASCII");
        assert!(text.contains("'shape': (2, 3)"), "{text}");
        assert_eq!(file.len(), 10 + len + 24);
        assert_eq!(&file[10 + len..][..4], 1.0f32.to_le_bytes());
        assert_eq!(&file[10 + len + 12..][..4], (-1.0f32).to_le_bytes());
    }
}
