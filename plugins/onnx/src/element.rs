//! ONNX's element types and ours. The numbers are those of `TensorProto.DataType`, which ONNX Runtime shares.

use pajamas_plugin_api::DType;

/// (ONNX number, ONNX name, bits of one element, ours where there is one). Strings have no fixed size.
const TYPES: &[(i32, &str, u64, Option<DType>)] = &[
    (1, "float", 32, Some(DType::F32)),
    (2, "uint8", 8, Some(DType::U8)),
    (3, "int8", 8, Some(DType::I8)),
    (4, "uint16", 16, Some(DType::U16)),
    (5, "int16", 16, Some(DType::I16)),
    (6, "int32", 32, Some(DType::I32)),
    (7, "int64", 64, Some(DType::I64)),
    (8, "string", 0, None),
    (9, "bool", 8, Some(DType::Bool)),
    (10, "float16", 16, Some(DType::F16)),
    (11, "double", 64, Some(DType::F64)),
    (12, "uint32", 32, Some(DType::U32)),
    (13, "uint64", 64, Some(DType::U64)),
    (14, "complex64", 64, None),
    (15, "complex128", 128, None),
    (16, "bfloat16", 16, Some(DType::Bf16)),
    (17, "float8e4m3fn", 8, None),
    (18, "float8e4m3fnuz", 8, None),
    (19, "float8e5m2", 8, None),
    (20, "float8e5m2fnuz", 8, None),
    (21, "uint4", 4, None),
    (22, "int4", 4, None),
    (23, "float4e2m1", 4, None),
    (24, "float8e8m0", 8, None),
    (25, "uint2", 2, None),
    (26, "int2", 2, None),
];

fn entry(number: i32) -> Option<&'static (i32, &'static str, u64, Option<DType>)> {
    TYPES.iter().find(|(n, ..)| *n == number)
}

/// Our type for an ONNX number, when both have it.
pub(crate) fn dtype(number: i32) -> Option<DType> {
    entry(number).and_then(|(.., dtype)| *dtype)
}

/// ONNX's name, for messages.
pub(crate) fn name(number: i32) -> String {
    entry(number).map_or_else(|| format!("element type {number}"), |(_, name, ..)| (*name).to_owned())
}

/// Bits of one element; 0 for strings and for types this version does not know.
pub(crate) fn bits(number: i32) -> u64 {
    entry(number).map_or(0, |(_, _, bits, _)| *bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_ours_has_a_number_and_the_right_size() {
        for ours in DType::ALL {
            let (number, ..) = TYPES.iter().find(|(.., dtype)| *dtype == Some(ours)).unwrap();
            assert_eq!(dtype(*number), Some(ours));
            assert_eq!(bits(*number), ours.size() as u64 * 8);
        }
    }

    #[test]
    fn types_without_a_counterpart_keep_their_name() {
        assert_eq!(dtype(8), None);
        assert_eq!(name(8), "string");
        assert_eq!(name(99), "element type 99");
        assert_eq!(bits(21), 4);
    }
}
