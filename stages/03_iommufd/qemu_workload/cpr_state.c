// SPDX-License-Identifier: GPL-2.0-only
/*
 * Big endian, as all that QEMU migrates:
 *
 *	"QCPR", be32 1
 *	for each descriptor: 1, name, be32 id, be32 number; then 0
 *	5, u8 length, "CprState/vfio devices", be32 1
 *	for each device: 1, name, be32 device, be32 IOAS, be32 HWPT; then 0
 *
 * where a name is be32 length, then text with its NUL. What is not exactly so is refused.
 */
#include <string.h>

#include "cpr_state.h"

#define MAGIC 0x51435052u
#define VERSION 1u
#define SUBSECTION 5
#define DEVICES "CprState/vfio devices"

struct cursor {
	struct cpr_state *state;
	size_t at;
	bool bad;
};

static const u8 *take(struct cursor *cursor, size_t size)
{
	static const u8 nothing[CPR_MAX_SIZE];
	const u8 *bytes = cursor->state->bytes + cursor->at;

	if (cursor->bad || size > cursor->state->size - cursor->at) {
		cursor->bad = true;
		return nothing;
	}
	cursor->at += size;
	return bytes;
}

static u8 take_u8(struct cursor *cursor)
{
	return *take(cursor, 1);
}

static u32 take_u32(struct cursor *cursor)
{
	const u8 *byte = take(cursor, 4);

	return (u32)byte[0] << 24 | byte[1] << 16 | byte[2] << 8 | byte[3];
}

static void take_name(struct cursor *cursor, char *name, size_t size)
{
	u32 length = take_u32(cursor);
	const u8 *text;

	if (!length || length > size) {
		cursor->bad = true;
		return;
	}
	text = take(cursor, length);
	memcpy(name, text, length);
	if (strnlen(name, length) != length - 1)
		cursor->bad = true;
}

/* True for one more element of a list. */
static bool take_more(struct cursor *cursor)
{
	u8 more = take_u8(cursor);

	if (more > 1)
		cursor->bad = true;
	return more && !cursor->bad;
}

static void take_fds(struct cursor *cursor)
{
	struct cpr_state *state = cursor->state;

	while (take_more(cursor)) {
		struct cpr_fd *fd = &state->fds[state->nr_fds];

		if (state->nr_fds == CPR_MAX_FDS) {
			cursor->bad = true;
			return;
		}
		take_name(cursor, fd->name, sizeof(fd->name));
		fd->id = take_u32(cursor);
		fd->number = take_u32(cursor);
		state->nr_fds++;
	}
}

static void take_device(struct cursor *cursor)
{
	struct cpr_device *device = &cursor->state->device;
	u8 length;

	if (take_u8(cursor) != SUBSECTION)
		cursor->bad = true;
	length = take_u8(cursor);
	if (length != strlen(DEVICES) || memcmp(take(cursor, length), DEVICES, length))
		cursor->bad = true;
	if (take_u32(cursor) != VERSION || !take_more(cursor))
		cursor->bad = true;
	take_name(cursor, device->name, sizeof(device->name));
	device->ids = cursor->at;
	device->device = take_u32(cursor);
	device->ioas = take_u32(cursor);
	device->hwpt = take_u32(cursor);
	/* One device is what there is. */
	if (take_more(cursor))
		cursor->bad = true;
}

/* @state has its bytes; what is wrong with them in a word, NULL when all of it is known. */
const char *cpr_parse(struct cpr_state *state)
{
	struct cursor cursor = { .state = state };

	state->nr_fds = 0;
	if (take_u32(&cursor) != MAGIC)
		return "magic";
	if (take_u32(&cursor) != VERSION)
		return "version";
	take_fds(&cursor);
	if (cursor.bad)
		return "descriptors";
	take_device(&cursor);
	if (cursor.bad)
		return "device";
	return cursor.at == state->size ? NULL : "length";
}

static void put_u32(u8 *byte, u32 value)
{
	byte[0] = value >> 24;
	byte[1] = value >> 16;
	byte[2] = value >> 8;
	byte[3] = value;
}

/* The next QEMU takes the objects of this kernel for those that it had. */
void cpr_set_ids(struct cpr_state *state, u32 device, u32 ioas, u32 hwpt)
{
	u8 *ids = state->bytes + state->device.ids;

	put_u32(ids, device);
	put_u32(ids + 4, ioas);
	put_u32(ids + 8, hwpt);
}

const struct cpr_fd *cpr_find(const struct cpr_state *state, const char *name, u32 id)
{
	for (u32 i = 0; i < state->nr_fds; i++)
		if (state->fds[i].id == id && !strcmp(state->fds[i].name, name))
			return &state->fds[i];
	return NULL;
}
