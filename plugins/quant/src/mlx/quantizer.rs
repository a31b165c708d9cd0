//! The quantizer `mlx`: folders of Hugging Face to folders of MLX.

use std::time::Instant;

use pajamas_plugin_api::{
    Cancel, ProgressSink, QuantizePlan, QuantizeReport, QuantizeRequest, Quantizer, QuantizerInfo, Result,
};

use super::{MlxConversion, PRECISIONS, Recipe, recipe};
use crate::error;
use crate::resume;
use crate::source::Source;

/// Makes MLX folders, on any system: nothing of MLX is needed for it.
#[derive(Debug, Default, Clone, Copy)]
pub struct MlxQuantizer;

impl Quantizer for MlxQuantizer {
    fn describe(&self) -> QuantizerInfo {
        QuantizerInfo {
            id: "mlx".into(),
            description: "Folders for mlx_lm, equal to those of mlx_lm.convert".into(),
            sources: vec!["huggingface".into()],
            target: "mlx".into(),
            precisions: PRECISIONS.map(str::to_owned).to_vec(),
            options_schema: recipe::schema(),
        }
    }

    fn plan(&self, request: &QuantizeRequest) -> Result<QuantizePlan> {
        let recipe = Recipe::new(&request.precision, &request.options)?;
        error::must_exist(&request.source)?;
        let source = Source::open(&request.source)?;
        let conversion = MlxConversion::plan(&source, &recipe)?;
        Ok(QuantizePlan {
            files: conversion.files(),
            peak_memory: conversion.peak_memory(),
            notes: conversion.notes().to_vec(),
        })
    }

    fn run(
        &self,
        request: &QuantizeRequest,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<QuantizeReport> {
        let started = Instant::now();
        let recipe = Recipe::new(&request.precision, &request.options)?;
        error::must_exist(&request.source)?;
        let source = Source::open(&request.source)?;
        let conversion = MlxConversion::plan(&source, &recipe)?;
        let identity = resume::identity(request)?;
        let resumed =
            conversion.write_on(&request.output, Some(&identity), cancel, &mut |done, total, tensor| {
                let fraction = done as f64 / total.max(1) as f64;
                progress.progress(fraction as f32, tensor)
            })?;
        let mut metadata = conversion.metadata();
        if resumed > 0 {
            metadata["resumed_tensors"] = resumed.into();
        }
        metadata["precision"] = request.precision.as_str().into();
        metadata["seconds"] = started.elapsed().as_secs_f64().into();
        Ok(QuantizeReport { files: conversion.files(), metadata })
    }
}
