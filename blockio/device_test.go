package blockio_test

import (
	"bytes"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

func TestDeviceConforms(t *testing.T) {
	blockiotest.TestDevice(t, func() blockio.Device { return blockiotest.NewDevice(numbered(100_003)) })
}

// A part of a device is a device, and nothing is written beside it.
func TestPartDeviceConforms(t *testing.T) {
	const size, off, n = 120_000, 5_000, 100_003
	var whole []*blockiotest.Device
	blockiotest.TestDevice(t, func() blockio.Device {
		d := blockiotest.NewDevice(numbered(size))
		whole = append(whole, d)
		return blockio.PartDevice(d, off, n)
	})
	for _, d := range whole {
		got, was := d.Bytes(), numbered(size)
		if !bytes.Equal(got[:off], was[:off]) || !bytes.Equal(got[off+n:], was[off+n:]) {
			t.Error("bytes beside the part have changed")
		}
	}
}

func TestMapOfUnknown(t *testing.T) {
	src := &blockiotest.Source{Data: make([]byte, 1000)}
	if n, zeros, err := blockio.MapAt(t.Context(), src, 300); n != 700 || zeros || err != nil {
		t.Errorf("MapAt(300) = %d, %v, %v; want 700, false, nil", n, zeros, err)
	}
}
