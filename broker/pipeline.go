package broker

import (
	"time"
)

// enqueue puts a Produce request behind those that wait for their commits.
func (c *conn) enqueue(j *produceJob) {
	c.mu.Lock()
	c.pipeline = append(c.pipeline, j)
	c.mu.Unlock()
}

// drainPipeline waits until at most n Produce requests wait for their commits; with n = 0 also until their answers
// have been written, so that the caller may write.
func (c *conn) drainPipeline(n int) {
	c.mu.Lock()
	for len(c.pipeline) > n || n == 0 && c.writing {
		c.idle.Wait()
	}
	c.mu.Unlock()
}

// pipelineError is why answers to Produce requests can no longer be written.
func (c *conn) pipelineError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// completed is told, on any goroutine and without blocking it, that a request of the pipeline has its outcome. If that
// is the oldest one, a writer starts; it ends when no answer is ready, and drainPipeline waits for it.
func (c *conn) completed() {
	c.mu.Lock()
	start := !c.writing && len(c.pipeline) > 0 && c.pipeline[0].done.Load()
	if start {
		c.writing = true
	}
	c.mu.Unlock()
	if start {
		go c.writeReady()
	}
}

// writeReady writes answers that are ready, in order, as many as there are in one write.
func (c *conn) writeReady() {
	var batch [maxPipelined]*produceJob
	out := getBuffer(0)
	defer func() { out.release() }()
	for {
		n, broken := c.takeReady(batch[:])
		if n == 0 {
			return
		}
		out.b = out.b[:0]
		good, told := false, true
		for _, j := range batch[:n] {
			out.b = j.appendAnswer(out.b)
			good, told = good || !j.allFailed(), told && j.told()
			if j.noReply && j.failed && broken == nil {
				broken = errRefusedQuietly
			}
		}
		if good {
			c.sour.clear()
		} else if held := c.sour.add(time.Now(), told); broken == nil && held > 0 {
			time.Sleep(held) // what is ready meanwhile goes with the next write
		}
		if broken == nil && len(out.b) > 0 {
			broken = c.write([][]byte{out.b})
		}
		if broken != nil {
			c.breakOff(broken)
		}
		now := time.Now()
		for i, j := range batch[:n] {
			c.b.metrics.observe(keyProduce, j.code, now.Sub(j.in.start))
			j.release()
			batch[i] = nil
		}
	}
}

// takeReady moves the answers that are ready to batch. When there is none, the caller is no longer the writer.
func (c *conn) takeReady(batch []*produceJob) (n int, broken error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(c.pipeline) && n < len(batch) && c.pipeline[n].done.Load() {
		batch[n] = c.pipeline[n]
		n++
	}
	left := copy(c.pipeline, c.pipeline[n:])
	clear(c.pipeline[left:])
	c.pipeline = c.pipeline[:left]
	c.writing = n > 0
	c.idle.Broadcast()
	return n, c.broken
}

// breakOff ends the connection: an answer could not be written, so none after it may be.
func (c *conn) breakOff(err error) {
	c.mu.Lock()
	if c.broken == nil {
		c.broken = err
	}
	c.mu.Unlock()
	c.nc.Close() // the reading goroutine ends
}
