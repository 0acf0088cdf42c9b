package history

import (
	"bufio"
	"encoding/json"
	"io"
	"time"
)

// Op is one operation of a client, for the trace of a run that people read after a violation.
type Op struct {
	Name      string    `json:"op"` // produce, commit, end, …, or a fault
	Client    string    `json:"client,omitempty"`
	Partition Partition `json:"partition,omitzero"`
	Seq       int64     `json:"seq,omitempty"`
	Value     int64     `json:"value"` // the offset that was answered
	Text      string    `json:"text,omitempty"`
	Called    time.Time `json:"called"`
	Returned  time.Time `json:"returned"` // set by Trace
}

// TraceTo writes every operation that is noted from now on to w as a line of JSON. Call Flush in the end.
func (h *History) TraceTo(w io.Writer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trace = bufio.NewWriterSize(w, 1<<20)
}

// Trace notes an operation that has just returned. It takes no part in the judgement.
func (h *History) Trace(op Op) {
	op.Returned = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trace == nil {
		return
	}
	line, err := json.Marshal(op)
	if err != nil {
		return // cannot happen: numbers and strings
	}
	h.trace.Write(append(line, '\n'))
}

// Flush writes what is buffered of the trace.
func (h *History) Flush() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trace == nil {
		return nil
	}
	return h.trace.Flush()
}
