//! Proves what only a store on disk has to do: to come back, to refuse, to fail without lying.

use super::*;
use crate::store::conformance;

fn open(path: &std::path::Path) -> EmbeddedBackend {
    EmbeddedBackend::open(EmbeddedSettings::new(path)).unwrap()
}

/// A backend whose folder goes with it.
struct Temporary {
    backend: EmbeddedBackend,
    _folder: tempfile::TempDir,
}

impl Backend for Temporary {
    fn commit(&mut self, writes: &mut Vec<Write>, outcomes: &mut Vec<Outcome>) {
        self.backend.commit(writes, outcomes);
    }

    fn read(&mut self, read: &Read) -> Outcome {
        self.backend.read(read)
    }

    fn prune(&mut self, before: Millis, messages_max: usize) -> Result<usize, StoreFault> {
        self.backend.prune(before, messages_max)
    }
}

#[test]
fn embedded_conforms() {
    conformance::suite(|| {
        let folder = tempfile::tempdir().unwrap();
        Box::new(Temporary { backend: open(folder.path()), _folder: folder })
    });
}
