//! Exit codes, and failures that carry one. The codes are public: scripts rely on them.

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(u8);

impl Exit {
    /// All is well.
    pub const OK: Self = Self(0);
    /// An expectation failed (a rule test, a demo attack not caught).
    pub const EXPECTATION: Self = Self(1);
    /// Wrong arguments or no credentials.
    pub const USAGE: Self = Self(2);
    /// Warnings, and they were denied.
    pub const WARNINGS: Self = Self(3);
    /// The credentials were refused.
    pub const REFUSED: Self = Self(5);
    /// There is no such thing.
    pub const NOT_FOUND: Self = Self(20);
    /// A service cannot be reached.
    pub const UNAVAILABLE: Self = Self(69);
    /// The store failed.
    pub const STORAGE: Self = Self(74);
    /// It may work later.
    pub const TEMPORARY: Self = Self(75);
    /// Invalid configuration or rules.
    pub const CONFIG: Self = Self(78);
    /// Interrupted by the user.
    pub const INTERRUPTED: Self = Self(130);

    /// The number that the operating system sees.
    #[must_use]
    pub fn code(self) -> u8 {
        self.0
    }
}

/// What went wrong, and how the process ends because of it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) error: anyhow::Error,
}

/// What a verb gives.
pub(super) type Outcome = Result<Exit, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(super) fn text(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, error: anyhow::Error::msg(text.into()) }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::text(Exit::USAGE, text)
    }
}

/// Gives an error its exit code.
pub(super) trait WithExit<T> {
    fn exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> WithExit<T> for Result<T, E> {
    fn exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}

/// stdout is gone: whoever read it has seen enough.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::OK } else { Exit::STORAGE };
        Self::new(exit, error)
    }
}
