// Package logtest collects what is written while a test looks at it: a log, or the output of a command.
package logtest

import (
	"bytes"
	"strings"
	"sync"
)

// Output can be written and read from several goroutines at once. The zero value is ready.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Reset forgets it.
func (o *Output) Reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Reset()
}

// With are the lines that have a text, without their ends.
func (o *Output) With(text string) (out []string) {
	for line := range strings.Lines(o.String()) {
		if strings.Contains(line, text) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}
