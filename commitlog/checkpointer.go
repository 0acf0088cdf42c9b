package commitlog

// checkpointer writes the state to the checkpoint slots and reads it back.
type checkpointer struct{}

func (c *checkpointer) write(l *Log) error { return nil }

func (c *checkpointer) load(l *Log) []byte { return nil }

// last is called when Run is over and nothing changes any more.
func (s *sealer) last() {}
