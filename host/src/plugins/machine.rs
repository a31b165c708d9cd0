//! This machine, as the backends of its plugins see it.

use std::sync::Arc;

use super::{ActiveBackend, Plugins};
use crate::error::Result;
use crate::hardware::{Device, Hardware, Provider};

/// The machine that this process runs on, with the devices of its backends. Those whose memory only a backend knows are asked anew
/// each time.
pub struct Machine(Arc<Plugins>);

impl Machine {
    /// The machine with these plugins.
    pub fn new(plugins: Arc<Plugins>) -> Self {
        Self(plugins)
    }
}

impl Provider for Machine {
    fn hardware(&self) -> Result<Hardware> {
        let mut found = Hardware::detect();
        self.0.add_devices(&mut found);
        Ok(found)
    }
}

impl Plugins {
    /// Adds to a machine what the backends that run here can compute on.
    pub fn add_devices(&self, machine: &mut Hardware) {
        for backend in self.backends().iter().filter(|backend| backend.probe.score > 0) {
            let told = if tells_memory(backend) { backend.backend.probe() } else { backend.probe.clone() };
            for device in told.devices {
                machine.add_device(Device {
                    memory_free: device.memory_free.min(device.memory_total),
                    memory_total: device.memory_total,
                    id: device.id,
                    name: device.name,
                    backends: vec![backend.full_id()],
                });
            }
        }
        if machine.devices.known.is_empty() {
            machine.devices.why_none =
                Some("no backend runs here: `pajamas plugins list` says why".to_owned());
        }
    }
}

/// Whether a backend knew the memory of a device beside the processor when it was opened.
fn tells_memory(backend: &ActiveBackend) -> bool {
    backend.probe.devices.iter().any(|device| device.id != "cpu" && device.memory_total > 0)
}
