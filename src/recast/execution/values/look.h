/* What values of WIDTH bits are: included by native.c once for each width.
 *
 * Without its sign, a value's bits are ordered as the numbers are: finite ones, infinity, NaN. */

#define JOINED(name, width) name##width
#define NAMED(name, width) JOINED(name, width)
#define UNSIGNED NAMED(NAMED(uint, WIDTH), _t)
#define SIGNED NAMED(NAMED(int, WIDTH), _t)
#define BLOCK_SEEN NAMED(block_seen_, WIDTH)
#define LOOK_AT_BLOCK NAMED(look_at_block_, WIDTH)
#define LOOK_CAREFULLY NAMED(look_carefully_, WIDTH)
#define SIZE_OF(value) ((SIGNED)((value) & (UNSIGNED) ~((UNSIGNED)1 << (WIDTH - 1))))

struct BLOCK_SEEN {
    UNSIGNED bits;
    SIGNED magnitude; /* signed, as vectors of every processor compare */
};

/* A block of any values. If the largest is not finite, the result is not to be used. */
FOR_EACH_PROCESSOR
static struct BLOCK_SEEN LOOK_AT_BLOCK(const UNSIGNED *values, int count) {
    UNSIGNED bits = 0;
    SIGNED magnitude = 0;
    for (int i = 0; i < count; i++) {
        SIGNED size = SIZE_OF(values[i]);
        bits |= values[i];
        magnitude = size > magnitude ? size : magnitude;
    }
    return (struct BLOCK_SEEN){bits, magnitude};
}

/* A block in which something is not finite. */
static void LOOK_CAREFULLY(
    const UNSIGNED *values, int count, SIGNED infinity, struct seen *seen
) {
    for (int i = 0; i < count; i++) {
        SIGNED size = SIZE_OF(values[i]);
        seen->nan += size > infinity;
        seen->infinite += size == infinity;
        seen->bits |= size > infinity ? 0 : values[i];
        seen->magnitude = larger_bits(seen->magnitude, size < infinity ? size : 0);
    }
}

/* Looks at `count` values of a dtype with these bits for `infinity`. Each of `tensors` tensors
 * begins at one of `starts`, the first at 0, and ends where the next begins; what is found of it
 * is added to its `seen`. */
void NAMED(recast_look_, WIDTH)(
    const UNSIGNED *values, int64_t count, int64_t infinity,
    const int64_t *starts, int64_t tensors, struct seen *seen
) {
    for (int64_t each = 0; each < tensors; each++) {
        int64_t end = each + 1 < tensors ? starts[each + 1] : count;
        for (int64_t at = starts[each]; at < end; at += BLOCK) {
            int size = (int)(end - at < BLOCK ? end - at : BLOCK);
            struct BLOCK_SEEN block = LOOK_AT_BLOCK(values + at, size);
            if (block.magnitude >= (SIGNED)infinity) {
                LOOK_CAREFULLY(values + at, size, (SIGNED)infinity, &seen[each]);
                continue;
            }
            seen[each].bits |= block.bits;
            seen[each].magnitude = larger_bits(seen[each].magnitude, block.magnitude);
        }
    }
}

#undef SIZE_OF
#undef LOOK_CAREFULLY
#undef LOOK_AT_BLOCK
#undef BLOCK_SEEN
#undef SIGNED
#undef UNSIGNED
#undef NAMED
#undef JOINED
#undef WIDTH
