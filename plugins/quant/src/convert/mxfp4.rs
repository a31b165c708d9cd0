//! Experts of gpt-oss: four-bit numbers, moved and never rounded.
//!
//! Source: rows of blocks of 32 elements in 16 bytes, element 2i in the low half of byte i and 2i + 1 in the high half;
//! scales beside them, one byte to a block. File (`block_mxfp4`, ggml-common.h): one scale, then 16 bytes, of which
//! byte j holds element j in the low half and element j + 16 in the high half.

use std::ops::Range;

use pajamas_plugin_api::Result;

use super::recipe::Order;
use crate::source::View;

/// Bytes of a block's elements.
const PACKED: usize = 16;
/// Blocks that are in memory at a time.
const CHUNK: usize = 1 << 12;

/// Gives the blocks of a tensor to `out`.
pub(super) fn write(
    blocks: View<'_>,
    scales: View<'_>,
    order: Order,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let all = scales.bytes.len() / per_row(scales);
    let all = if matches!(order, Order::Every2nd(_)) { all / 2 } else { all };
    let step = (CHUNK / per_row(scales)).max(1);
    let mut buffer = Vec::with_capacity((CHUNK + per_row(scales)) * (PACKED + 1));
    for start in (0..all).step_by(step) {
        buffer.clear();
        rows(blocks, scales, order, start..all.min(start + step), &mut buffer);
        out(&buffer)?;
    }
    Ok(())
}

/// Appends the blocks of some rows.
pub(super) fn rows(blocks: View<'_>, scales: View<'_>, order: Order, rows: Range<usize>, out: &mut Vec<u8>) {
    let per_row = per_row(scales);
    for row in rows {
        let from = match order {
            Order::Every2nd(first) => row * 2 + first as usize,
            _ => row,
        };
        for block in from * per_row..(from + 1) * per_row {
            let packed = blocks.bytes.get(block * PACKED..(block + 1) * PACKED).unwrap_or(&[]);
            out.extend(scales.bytes.get(block));
            repack(packed, out);
        }
    }
}

/// Blocks of a row.
fn per_row(scales: View<'_>) -> usize {
    scales.info.shape.last().map_or(1, |n| *n as usize).max(1)
}

fn repack(packed: &[u8], out: &mut Vec<u8>) {
    let element = |i: usize| (packed.get(i / 2).copied().unwrap_or(0) >> (i % 2 * 4)) & 0xf;
    out.extend((0..PACKED).map(|j| element(j) | element(j + PACKED) << 4));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_move_to_their_places() {
        // Element i is i modulo 16, so that byte j holds j twice.
        let packed: Vec<u8> = (0..16u8).map(|i| ((2 * i) % 16) | ((2 * i + 1) % 16) << 4).collect();
        let mut out = Vec::new();
        repack(&packed, &mut out);
        assert_eq!(out, (0..16u8).map(|j| j | j << 4).collect::<Vec<_>>());
    }
}
