//! Memory that host and worker both see: made by who writes, sealed in its size, mapped by who reads, used again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use pajamas_plugin_api::{NamedTensor, PluginError, TensorView, byte_len, codes};

use super::protocol::{Part, Tensors, broken};

/// Where tensors begin: enough for every element type, and for a processor's widest loads.
const ALIGNMENT: u64 = 64;
/// The smallest piece: smaller tensors share its pages.
const SMALLEST: u64 = 64 << 10;
/// Idle pieces that are kept, and their bytes: touching fresh pages costs more than copying into them.
const MOST_KEPT: (usize, u64) = (8, 256 << 20);
/// Pieces of the other side that are mapped at the same time.
const MOST_MAPPED: usize = 1024;

/// A mapped piece. Who may write when is what messages say: the writer owns it until it sent it, and again from its
/// release on.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the memory belongs to the mapping as a box's does; nothing of it is bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: shared references only read, and the peer does not write what it has sent.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &OwnedFd, bytes: u64) -> Result<Self, PluginError> {
        let length = usize::try_from(bytes).ok().and_then(NonZeroUsize::new);
        let length = length.ok_or_else(|| broken(format!("shared memory of {bytes} bytes")))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping of a file whose size is sealed or was checked; nothing else lies there.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file.as_fd(), 0) };
        let start = start.map_err(|error| no_memory(bytes, &error.to_string()))?.cast();
        Ok(Self { start, length })
    }

    /// All of it.
    pub fn all(&self) -> &[u8] {
        // SAFETY: mapped and readable over its whole length for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length.get()) }
    }

    fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable; `self` is borrowed mutably, and the peer does not touch what is not sent.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length.get()) }
    }

    /// The tensor that a part describes.
    ///
    /// # Errors
    /// `plugin-protocol` when it does not lie within; `invalid-input` for a shape that is none.
    pub fn tensor<'m>(&'m self, part: &'m Part) -> Result<TensorView<'m>, PluginError> {
        let length = byte_len(part.dtype, &part.shape)?;
        let start = usize::try_from(part.offset).ok();
        let bytes = start.and_then(|start| self.all().get(start..start.checked_add(length)?));
        let bytes = bytes.ok_or_else(|| broken(format!("`{}` lies outside its memory", part.name)))?;
        TensorView::new(part.dtype, &part.shape, bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.length.get()) };
    }
}

/// A piece in the hands of who fills it.
#[derive(Debug)]
pub struct Slab {
    /// Its number; never 0.
    pub id: u64,
    /// Its descriptor, until the other side has it.
    pub file: Option<OwnedFd>,
    /// How much of it is spoken for.
    used: u64,
    map: Mapping,
}

impl Slab {
    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.map.length.get() as u64
    }

    /// Room for one more tensor, and where it begins; `None` when it does not fit.
    pub fn reserve(&mut self, bytes: u64) -> Option<u64> {
        let offset = self.used.checked_next_multiple_of(ALIGNMENT)?;
        let end = offset.checked_add(bytes).filter(|end| *end <= self.size())?;
        self.used = end;
        Some(offset)
    }

    /// The bytes of tensors that were reserved one after the other.
    pub fn pieces(&mut self, places: &[(u64, u64)]) -> Vec<&mut [u8]> {
        let mut rest = self.map.all_mut();
        let mut begins = 0;
        let mut pieces = Vec::with_capacity(places.len());
        for (offset, bytes) in places {
            let (_, after) = rest.split_at_mut((offset - begins) as usize);
            let (piece, after) = after.split_at_mut(*bytes as usize);
            pieces.push(piece);
            rest = after;
            begins = offset + bytes;
        }
        pieces
    }
}

/// The pieces that this side makes.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<Vec<Slab>>,
    made: AtomicU64,
    /// Whether who takes a piece finds zeros in it.
    zeroed: bool,
}

impl Pool {
    /// A pool of zeroed pieces, for who may leave some of it as it is.
    pub fn zeroed() -> Self {
        Self { zeroed: true, ..Self::default() }
    }

    /// A piece with room for so many bytes.
    ///
    /// # Errors
    /// `out-of-memory`.
    pub fn take(&self, bytes: u64) -> Result<Slab, PluginError> {
        let size = bytes.max(SMALLEST);
        let size =
            size.checked_next_power_of_two().ok_or_else(|| no_memory(bytes, "there is no such number"))?;
        {
            let mut idle = self.idle();
            let fits = |slab: &&mut Slab| (size..=size.saturating_mul(4)).contains(&slab.size());
            if let Some(best) =
                idle.iter_mut().filter(fits).min_by_key(|slab| slab.size()).map(|slab| slab.id)
                && let Some(at) = idle.iter().position(|slab| slab.id == best)
            {
                return Ok(idle.swap_remove(at));
            }
        }
        let file = create(size).map_err(|error| no_memory(size, &error.to_string()))?;
        let map = Mapping::new(&file, size)?;
        let id = 1 + self.made.fetch_add(1, Ordering::Relaxed);
        Ok(Slab { id, file: Some(file), used: 0, map })
    }

    /// Takes a piece back. Gives the numbers of those that are not kept, for the other side to forget.
    pub fn give_back(&self, mut slab: Slab) -> Vec<u64> {
        if self.zeroed {
            // Now, and not when somebody waits for it.
            let used = slab.used as usize;
            slab.map.all_mut()[..used].fill(0);
        }
        slab.used = 0;
        let mut idle = self.idle();
        idle.push(slab);
        let mut gone = Vec::new();
        let (most, most_bytes) = MOST_KEPT;
        while idle.len() > most || idle.iter().map(Slab::size).sum::<u64>() > most_bytes {
            let slab = idle.remove(0);
            gone.push(slab.id);
        }
        gone
    }

    /// No panic happens while the lock is held.
    fn idle(&self) -> MutexGuard<'_, Vec<Slab>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pieces of the other side that are mapped here.
#[derive(Debug, Default)]
pub struct Mapped(Mutex<HashMap<u64, Arc<Mapping>>>);

impl Mapped {
    /// The memory that tensors lie in; mapped now when its descriptor came along.
    ///
    /// # Errors
    /// `plugin-protocol` when it is unknown, or not what it is said to be.
    pub fn of(&self, tensors: &Tensors, file: Option<OwnedFd>) -> Result<Option<Arc<Mapping>>, PluginError> {
        let mut mapped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (tensors.fresh, file) {
            _ if tensors.slab == 0 && tensors.parts.is_empty() => Ok(None),
            (Some(size), Some(file)) => {
                check(&file, size)?;
                if mapped.len() >= MOST_MAPPED {
                    return Err(broken(format!("more than {MOST_MAPPED} pieces of shared memory")));
                }
                let map = Arc::new(Mapping::new(&file, size)?);
                mapped.insert(tensors.slab, Arc::clone(&map));
                Ok(Some(map))
            }
            (None, None) => match mapped.get(&tensors.slab) {
                Some(map) => Ok(Some(Arc::clone(map))),
                None => Err(broken(format!("shared memory {} is unknown", tensors.slab))),
            },
            _ => Err(broken("shared memory without its descriptor".to_owned())),
        }
    }

    /// The other side will not use it again.
    pub fn forget(&self, slab: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&slab);
    }
}

/// The one copy: tensors into shared memory.
///
/// # Errors
/// `out-of-memory`.
pub fn put(pool: &Pool, tensors: &[NamedTensor<'_>]) -> Result<Option<(Slab, Tensors)>, PluginError> {
    if tensors.is_empty() {
        return Ok(None);
    }
    let room = tensors.iter().map(|t| t.tensor.bytes().len() as u64 + ALIGNMENT).sum();
    let mut slab = pool.take(room)?;
    let fresh = slab.file.is_some().then(|| slab.size());
    let mut parts = Vec::with_capacity(tensors.len());
    for named in tensors {
        let bytes = named.tensor.bytes();
        let offset = slab.reserve(bytes.len() as u64).ok_or_else(|| no_memory(room, "it does not fit"))?;
        let start = offset as usize;
        slab.map.all_mut()[start..start + bytes.len()].copy_from_slice(bytes);
        let (dtype, shape) = (named.tensor.dtype(), named.tensor.shape().to_vec());
        parts.push(Part { name: named.name.to_owned(), dtype, shape, offset });
    }
    let tensors = Tensors { slab: slab.id, fresh, parts };
    Ok(Some((slab, tensors)))
}

fn no_memory(bytes: u64, why: &str) -> PluginError {
    PluginError::new(codes::OUT_OF_MEMORY, format!("no {bytes} bytes of shared memory: {why}"))
        .help("a container may limit shared memory: raise its limit, or set isolation = \"none\"")
}

/// A file in memory whose size nobody changes any more.
#[cfg(target_os = "linux")]
fn create(size: u64) -> nix::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = memfd_create("pajamas", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&file, i64::try_from(size).map_err(|_| nix::Error::EFBIG)?)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Elsewhere there are no seals: a file without a name, of which only the two processes have descriptors.
#[cfg(not(target_os = "linux"))]
fn create(size: u64) -> std::io::Result<OwnedFd> {
    let file = tempfile::tempfile()?;
    file.set_len(size)?;
    Ok(file.into())
}

/// A file that shrinks under its mapping kills who reads it: its size must be sealed, and be what was said.
fn check(file: &OwnedFd, size: u64) -> Result<(), PluginError> {
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).unwrap_or(0);
        if !SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(broken("shared memory that could shrink".to_owned()));
        }
    }
    let file = file.try_clone().map(std::fs::File::from);
    let found = file.and_then(|file| file.metadata()).map_or(0, |meta| meta.len());
    if found == size { Ok(()) } else { Err(broken(format!("shared memory of {found} bytes, not {size}"))) }
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::{DType, as_bytes};

    use super::*;

    fn floats(values: &[f32]) -> NamedTensor<'_> {
        let shape: &'static [u64] = match values.len() {
            2 => &[2],
            _ => &[3],
        };
        NamedTensor { name: "x", tensor: TensorView::new(DType::F32, shape, as_bytes(values)).unwrap() }
    }

    #[test]
    fn what_is_put_in_is_seen_on_the_other_side_and_the_memory_is_used_again() {
        let (pool, mapped) = (Pool::default(), Mapped::default());
        let (a, b) = ([1.0f32, 2.0], [3.0f32, 4.0, 5.0]);
        let (mut slab, tensors) = put(&pool, &[floats(&a), floats(&b)]).unwrap().unwrap();
        let map = mapped.of(&tensors, slab.file.take()).unwrap().unwrap();
        assert_eq!(map.tensor(&tensors.parts[0]).unwrap().elements::<f32>().unwrap(), a);
        assert_eq!(map.tensor(&tensors.parts[1]).unwrap().elements::<f32>().unwrap(), b);
        let id = slab.id;
        assert!(pool.give_back(slab).is_empty());
        let (slab, tensors) = put(&pool, &[floats(&b)]).unwrap().unwrap();
        assert_eq!((slab.id, tensors.fresh), (id, None));
        let map = mapped.of(&tensors, None).unwrap().unwrap();
        assert_eq!(map.tensor(&tensors.parts[0]).unwrap().elements::<f32>().unwrap(), b);
    }

    #[test]
    fn memory_that_is_not_what_it_is_said_to_be_is_refused() {
        let (pool, mapped) = (Pool::default(), Mapped::default());
        let code = |result: Result<Option<Arc<Mapping>>, PluginError>| result.unwrap_err().code;
        let mut slab = pool.take(1).unwrap();
        let part = Part { name: "x".into(), dtype: DType::F32, shape: vec![2], offset: 0 };
        let tensors = |fresh| Tensors { slab: 1, fresh, parts: vec![part.clone()] };
        assert_eq!(code(mapped.of(&tensors(None), None)), codes::PROTOCOL);
        assert_eq!(code(mapped.of(&tensors(Some(1)), slab.file.take())), codes::PROTOCOL);
        let unsealed = tempfile::tempfile().unwrap();
        unsealed.set_len(4096).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(code(mapped.of(&tensors(Some(4096)), Some(unsealed.into()))), codes::PROTOCOL);
        }
        let outside = Part { offset: u64::MAX, ..part.clone() };
        assert_eq!(slab.map.tensor(&outside).unwrap_err().code, codes::PROTOCOL);
        let outside = Part { offset: slab.size() - 4, ..part };
        assert_eq!(slab.map.tensor(&outside).unwrap_err().code, codes::PROTOCOL);
    }

    #[test]
    fn memory_that_was_used_is_zeroed_for_the_next_and_little_is_kept() {
        let pool = Pool::zeroed();
        let mut slab = pool.take(8).unwrap();
        let place = (slab.reserve(8).unwrap(), 8);
        slab.pieces(&[place])[0].fill(7);
        pool.give_back(slab);
        let mut slab = pool.take(8).unwrap();
        let place = (slab.reserve(8).unwrap(), 8);
        assert_eq!(slab.pieces(&[place])[0], [0; 8]);
        assert!(slab.reserve(slab.size()).is_none());
        let many: Vec<Slab> = (0..12).map(|_| pool.take(8).unwrap()).collect();
        assert_eq!(many.into_iter().flat_map(|slab| pool.give_back(slab)).count(), 4);
    }
}
