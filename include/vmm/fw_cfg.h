/* Files and items the machine hands to firmware through the fw_cfg device (QEMU's docs/specs/fw_cfg). Before the first
   reset; copies the data. Order of files is by name, as SeaBIOS expects. */
#ifndef VMM_FW_CFG_H
#define VMM_FW_CFG_H
#include "vmm/device.h"
/* -ENODEV: no such device; -EEXIST; -ENOSPC. */
int fw_cfg_add_file(struct board *board, const char *name, const void *data, size_t len, struct err *e);
int fw_cfg_add_item(struct board *board, uint16_t key, const void *data, size_t len, struct err *e);
/* A file the guest may write through DMA (RSDP address, vmgenid ...); written(): after a write, lock held; may be NULL.
   A reset brings the contents given here back. */
int fw_cfg_add_writable(struct board *board, const char *name, const void *data, size_t len,
			void (*written)(void *opaque, const uint8_t *data, size_t len), void *opaque, struct err *e);
/* What a file contains now, for files the guest writes: copies at most `len` bytes, returns the file's size. -ENOENT.
 */
int fw_cfg_read_file(struct board *board, const char *name, void *buf, size_t len);
/* Replace the contents of an existing file or item; takes effect for readers that select it later (at reset). */
int fw_cfg_update(struct board *board, const char *name, const void *data, size_t len, struct err *e);
int fw_cfg_update_item(struct board *board, uint16_t key, const void *data, size_t len, struct err *e);
#endif
