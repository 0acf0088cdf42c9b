package broker

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// Keys with paths of their own.
const (
	keyProduce     = int16(protocol.KeyProduce)
	keyFetch       = int16(protocol.KeyFetch)
	keyApiVersions = int16(protocol.KeyApiVersions)
)

// dispatch handles one request and lets go of it. An error ends the connection.
func (c *conn) dispatch(ctx context.Context, in inbound) error {
	in.start = time.Now()
	c.b.metrics.bytesIn.Add(float64(len(in.frame) + protocol.FrameSizeLen))
	body, err := c.header.Parse(in.frame)
	if err != nil {
		c.letGo(in)
		return err
	}
	key, version := int16(c.header.Key), c.header.Version
	row := lookup(key)
	if row == nil || version < row.min || version > row.max {
		defer c.letGo(in)
		if key != keyApiVersions {
			return &protocol.VersionError{Key: c.header.Key, Version: version}
		}
		// KIP-511: a client that is newer than we are learns from an answer that it can read.
		c.drainPipeline(0)
		return c.writeResponse(&c.header, unsupportedApiVersions(c.b))
	}
	if key == keyProduce {
		return c.produce(ctx, in, body) // lets go of in by itself
	}
	defer c.letGo(in)
	c.drainPipeline(0)
	if err := c.pipelineError(); err != nil {
		return err
	}
	if key == keyFetch {
		return c.fetch(ctx, in, body)
	}
	return c.handle(ctx, row, in, body)
}

// handle answers a request by its row's function.
func (c *conn) handle(ctx context.Context, row *handler, in inbound, body []byte) error {
	req, err := protocol.DecodeRequest(&c.header, body)
	if err != nil {
		return err
	}
	if row.waits {
		c.watchPeer()
	}
	rq := &request{
		key: row.key, version: c.header.Version, clientID: c.header.ClientID, body: req, remote: c.nc.RemoteAddr(),
	}
	resp := row.handle(c.b, ctx, rq)
	if resp == nil {
		return fmt.Errorf("handle %s request: no answer", row.name)
	}
	err = c.writeResponse(&c.header, resp)
	c.b.metrics.observe(row.key, topCode(resp), time.Since(in.start))
	return err
}

// topCode returns the error code of a whole response, CodeNone where it has none.
func topCode(resp kmsg.Response) protocol.Code {
	v := reflect.Indirect(reflect.ValueOf(resp))
	if v.Kind() != reflect.Struct {
		return protocol.CodeNone
	}
	if f := v.FieldByName("ErrorCode"); f.IsValid() && f.Kind() == reflect.Int16 {
		return protocol.Code(f.Int())
	}
	return protocol.CodeNone
}

// writeResponse writes an answer in the response's version. The pipeline is empty.
func (c *conn) writeResponse(h *protocol.RequestHeader, resp kmsg.Response) error {
	out := getBuffer(0)
	defer func() { out.release() }()
	out.b = protocol.AppendFrameSize(out.b)
	out.b = protocol.AppendResponseHeader(out.b, h.Key, resp.GetVersion(), h.CorrelationID)
	out.b = resp.AppendTo(out.b)
	protocol.EndFrame(out.b, 0)
	return c.write([][]byte{out.b})
}
