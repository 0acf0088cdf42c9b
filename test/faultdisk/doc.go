// Package faultdisk makes a real file system that can be told to hang and to die, and fills one: ext4 on a loop device over a file. It
// takes Linux, root, and the tools mount and mkfs.ext4, and says so where one is missing (ErrUnsupported). It needs no
// device mapper, and knows nothing of who writes there.
package faultdisk

import "errors"

// ErrUnsupported: this machine cannot make such a disk; the error says why.
var ErrUnsupported = errors.New("no disk that can be broken here")
