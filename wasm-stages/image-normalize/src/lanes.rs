//! The one loop that every pixel goes through, written in lanes: `pixel * gain + bias`.

/// RGB pixels to three planes, one after the other in `out`, which has as many elements as `pixels`.
pub fn planes(pixels: &[u8], gain: [f32; 3], bias: [f32; 3], out: &mut [f32]) {
    let plane = pixels.len() / 3;
    let (red, rest) = out.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    let done = simd::planes(pixels, gain, bias, [&mut *red, &mut *green, &mut *blue]);
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    let done = 0;
    for (i, pixel) in pixels.chunks_exact(3).enumerate().skip(done) {
        red[i] = f32::from(pixel[0]) * gain[0] + bias[0];
        green[i] = f32::from(pixel[1]) * gain[1] + bias[1];
        blue[i] = f32::from(pixel[2]) * gain[2] + bias[2];
    }
}

/// Pixels of `channels` (1 or 3) interleaved bytes to as many interleaved elements.
pub fn interleaved(pixels: &[u8], channels: usize, gain: [f32; 3], bias: [f32; 3], out: &mut [f32]) {
    // Twelve elements are whole pixels and whole vectors both for one channel and for three.
    let gain: [f32; 12] = std::array::from_fn(|i| gain[i % channels]);
    let bias: [f32; 12] = std::array::from_fn(|i| bias[i % channels]);
    let (from, from_rest) = pixels.as_chunks::<12>();
    let (to, to_rest) = out.as_chunks_mut::<12>();
    for (to, from) in to.iter_mut().zip(from) {
        for i in 0..12 {
            to[i] = f32::from(from[i]) * gain[i] + bias[i];
        }
    }
    for (i, (to, from)) in to_rest.iter_mut().zip(from_rest).enumerate() {
        *to = f32::from(*from) * gain[i] + bias[i];
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd {
    use std::arch::wasm32::*;

    /// Sixteen pixels at a time; returns how many pixels are done.
    pub fn planes(pixels: &[u8], gain: [f32; 3], bias: [f32; 3], out: [&mut [f32]; 3]) -> usize {
        let gain = gain.map(|x| f32x4_splat(x));
        let bias = bias.map(|x| f32x4_splat(x));
        let (chunks, _) = pixels.as_chunks::<48>();
        for (n, chunk) in chunks.iter().enumerate() {
            let [a, b, c] = load(chunk);
            // The bytes of one channel lie 3 apart: gather them out of the first two vectors, then add the third's.
            let red = i8x16_shuffle::<0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0>(a, b);
            let red = i8x16_shuffle::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29>(red, c);
            let green = i8x16_shuffle::<1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0>(a, b);
            let green = i8x16_shuffle::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30>(green, c);
            let blue = i8x16_shuffle::<2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0>(a, b);
            let blue = i8x16_shuffle::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31>(blue, c);
            for (channel, bytes) in [red, green, blue].into_iter().enumerate() {
                if let Some(to) = out[channel].get_mut(n * 16..).and_then(|rest| rest.first_chunk_mut::<16>())
                {
                    widen(bytes, gain[channel], bias[channel], to);
                }
            }
        }
        chunks.len() * 16
    }

    fn load(chunk: &[u8; 48]) -> [v128; 3] {
        let at = chunk.as_ptr().cast::<v128>();
        // SAFETY: the chunk is three vectors of 16 bytes, and v128_load needs no alignment.
        unsafe { [v128_load(at), v128_load(at.add(1)), v128_load(at.add(2))] }
    }

    fn widen(bytes: v128, gain: v128, bias: v128, to: &mut [f32; 16]) {
        let (low, high) = (u16x8_extend_low_u8x16(bytes), u16x8_extend_high_u8x16(bytes));
        let quarters = [
            u32x4_extend_low_u16x8(low),
            u32x4_extend_high_u16x8(low),
            u32x4_extend_low_u16x8(high),
            u32x4_extend_high_u16x8(high),
        ];
        for (to, quarter) in to.as_chunks_mut::<4>().0.iter_mut().zip(quarters) {
            let value = f32x4_add(f32x4_mul(f32x4_convert_u32x4(quarter), gain), bias);
            // SAFETY: `to` is four f32, one vector, and v128_store needs no alignment.
            unsafe { v128_store(to.as_mut_ptr().cast(), value) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loops_agree_for_sizes_around_the_vectors() {
        let (gain, bias) = ([0.5, 2.0, -1.0], [0.0, 1.0, 255.0]);
        for count in [1, 3, 4, 15, 16, 17, 33] {
            let pixels: Vec<u8> = (0..count * 3).map(|i| (i * 37 % 256) as u8).collect();
            let mut apart = vec![0.0; pixels.len()];
            let mut mixed = vec![0.0; pixels.len()];
            planes(&pixels, gain, bias, &mut apart);
            interleaved(&pixels, 3, gain, bias, &mut mixed);
            for i in 0..count {
                for c in 0..3 {
                    let want = f32::from(pixels[i * 3 + c]) * gain[c] + bias[c];
                    assert_eq!((apart[c * count + i], mixed[i * 3 + c]), (want, want));
                }
            }
        }
    }
}
