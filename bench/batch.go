package bench

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeBatch makes one uncompressed v2 record batch without a producer id: records of
// recordBytes incompressible value bytes each, no keys.
func encodeBatch(records, recordBytes int, now time.Time) []byte {
	rng := rand.NewChaCha8([32]byte{1})
	value := make([]byte, recordBytes)
	var body []byte
	for i := range records {
		rng.Read(value)
		var rec []byte
		rec = append(rec, 0)                     // attributes
		rec = binary.AppendVarint(rec, 0)        // timestamp delta
		rec = binary.AppendVarint(rec, int64(i)) // offset delta
		rec = binary.AppendVarint(rec, -1)       // no key
		rec = binary.AppendVarint(rec, int64(len(value)))
		rec = append(rec, value...)
		rec = binary.AppendVarint(rec, 0) // no headers
		body = binary.AppendVarint(body, int64(len(rec)))
		body = append(body, rec...)
	}
	const header = 61
	b := make([]byte, header, header+len(body))
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(header-12+len(body))) // length after this field
	be.PutUint32(b[12:], 0xffffffff)                 // leader epoch: the broker's
	b[16] = 2                                        // magic
	be.PutUint32(b[23:], uint32(records-1))
	be.PutUint64(b[27:], uint64(now.UnixMilli()))
	be.PutUint64(b[35:], uint64(now.UnixMilli()))
	be.PutUint64(b[43:], 0xffffffffffffffff) // no producer
	be.PutUint16(b[51:], 0xffff)
	be.PutUint32(b[53:], 0xffffffff)
	be.PutUint32(b[57:], uint32(records))
	b = append(b, body...)
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}
