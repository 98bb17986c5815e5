/* What values of WIDTH bits are: included by native.c once for each width.
 *
 * Without its sign, a value's bits are ordered as the numbers are: finite ones, infinity, NaN. */

#define JOINED(name, width) name##width
#define NAMED(name, width) JOINED(name, width)
#define UNSIGNED NAMED(NAMED(uint, WIDTH), _t)
#define SIGNED NAMED(NAMED(int, WIDTH), _t)
#define BLOCK_SEEN NAMED(block_seen_, WIDTH)
#define LOOK_AT_BLOCK NAMED(look_at_block_, WIDTH)
#define IS_TOO_FINE NAMED(is_too_fine_, WIDTH)
#define LOST_TO NAMED(lost_to_, WIDTH)
#define LOST NAMED(lost_, WIDTH)
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

#if WIDTH > 16
/* Whether any number of a block lies below 2**least and is no multiple of 2**(least - mantissa). */
FOR_EACH_PROCESSOR
static int IS_TOO_FINE(const UNSIGNED *values, int count, int least, int mantissa) {
    const SIGNED normal = (SIGNED)(least + BIAS) << MANTISSA;
    /* What is added to this loses whatever is no such multiple. */
    const UNSIGNED coarse = (UNSIGNED)(least - mantissa + MANTISSA + BIAS) << MANTISSA;
    FLOAT step;
    memcpy(&step, &coarse, sizeof step);
    UNSIGNED lost = 0;
    for (int i = 0; i < count; i++) {
        UNSIGNED size = (UNSIGNED)SIZE_OF(values[i]), after;
        FLOAT number;
        memcpy(&number, &size, sizeof number);
        number = (number + step) - step;
        memcpy(&after, &number, sizeof after);
        lost |= (SIGNED)size < normal ? size ^ after : 0;
    }
    return lost != 0;
}

static uint64_t LOST_TO(
    const UNSIGNED *values, int count, struct BLOCK_SEEN block, const struct narrow *dtype
) {
    FLOAT largest;
    memcpy(&largest, &block.magnitude, sizeof largest);
    UNSIGNED behind = ((UNSIGNED)1 << (MANTISSA - dtype->mantissa)) - 1;
    if ((block.bits & behind) || (double)largest > dtype->largest
        || IS_TOO_FINE(values, count, dtype->least, dtype->mantissa))
        return dtype->loses;
    return 0;
}

/* Which of the narrow dtypes do not hold every number of a block, in which all are finite; those
 * that are `known` not to are not asked again. */
static uint64_t LOST(
    const UNSIGNED *values, int count, struct BLOCK_SEEN block, int64_t infinity, uint64_t known
) {
    (void)infinity;
    if (!(known & BF16.loses))
        known |= LOST_TO(values, count, block, &BF16);
    if (!(known & FP16.loses))
        known |= LOST_TO(values, count, block, &FP16);
    return known;
}
#else
/* What one of 16 bits is in fp32. */
static uint32_t fp32_of(int32_t size, int is_fp16) {
    if (!is_fp16)
        return (uint32_t)size << 16;
    uint32_t tiny = as_bits((float)size * 0x1p-24f), is_tiny = 0u - (size < 0x400);
    uint32_t normal = ((uint32_t)size << 13) + ((127u - 15u) << 23);
    return (tiny & is_tiny) | (normal & ~is_tiny); /* a choice by ?: is no vector's */
}

FOR_EACH_PROCESSOR
static void widen(const uint16_t *values, uint32_t *out, int count, int is_fp16) {
    for (int i = 0; i < count; i++)
        out[i] = fp32_of(SIZE_OF(values[i]), is_fp16);
}

static uint64_t LOST(
    const uint16_t *values, int count, struct BLOCK_SEEN block, int64_t infinity, uint64_t known
) {
    (void)block;
    int is_fp16 = infinity == 0x7c00;
    const struct narrow *other = is_fp16 ? &BF16 : &FP16;
    if (known & other->loses)
        return known;
    uint32_t wide[BLOCK];
    widen(values, wide, count, is_fp16);
    return known | lost_to_32(wide, count, look_at_block_32(wide, count), other);
}
#endif

/* A block in which something is not finite. */
static void LOOK_CAREFULLY(
    const UNSIGNED *values, int count, SIGNED infinity, struct seen *seen
) {
    UNSIGNED finite[BLOCK];
    for (int i = 0; i < count; i++) {
        SIGNED size = SIZE_OF(values[i]);
        finite[i] = size < infinity ? values[i] : 0;
        seen->nan += size > infinity;
        seen->infinite += size == infinity;
        seen->bits |= size > infinity ? 0 : values[i];
        seen->magnitude = larger_bits(seen->magnitude, size < infinity ? size : 0);
    }
    seen->lost = LOST(finite, count, LOOK_AT_BLOCK(finite, count), infinity, seen->lost);
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
            seen[each].lost = LOST(values + at, size, block, infinity, seen[each].lost);
            seen[each].bits |= block.bits;
            seen[each].magnitude = larger_bits(seen[each].magnitude, block.magnitude);
        }
    }
}

#undef SIZE_OF
#undef LOOK_CAREFULLY
#undef LOST
#undef LOST_TO
#undef IS_TOO_FINE
#undef LOOK_AT_BLOCK
#undef BLOCK_SEEN
#undef SIGNED
#undef UNSIGNED
#undef NAMED
#undef JOINED
#undef BIAS
#undef MANTISSA
#undef FLOAT
#undef WIDTH
