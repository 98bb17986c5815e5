/* What values are, and fp32 → bf16 with what that did to them: in one pass over the values.
 *
 * The kernels do what examine.py and cast.py do with numpy, and their results equal theirs bit for
 * bit; they are there because one pass over values in a core's cache takes a tenth of the time of
 * the dozen passes of numpy's.
 */

#include <stdint.h>
#include <string.h>

/* Whoever loads the library looks at this first: a stale one must not be called. */
#define INTERFACE 3

/* Several versions of the loop, of which the processor's best is chosen when the library loads. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

enum { BLOCK = 1024 }; /* values whose counts fit 32 bits, and that fit a core's first cache */

#define MAGNITUDE 0x7fffffffu /* every bit but the sign */
#define INFINITE 0x7f800000u
#define OVERFLOWING 0x7f7f8000u /* the least magnitude that rounds to infinity in bf16 */
#define QUIET_NAN 0x7fc0u

/* The fields of examine.py's FACTS, in its order; each of 8 bytes. */
struct facts {
    uint64_t bits;
    double magnitude;
    int64_t nan;
    int64_t infinite;
    int64_t changed;
    double largest_error;
    int64_t overflowed;
    double largest_overflow;
    int64_t underflowed;
    uint64_t lost; /* which the cast does not look for */
};

struct block {
    uint32_t bits;
    uint32_t changed;
    uint32_t underflowed;
    int32_t magnitude; /* the bits of a float that is not negative: ordered as integers are */
    int32_t error;
};

static float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Round to nearest, ties to even: half a unit less one, plus one if the unit is odd. */
static uint32_t rounded(uint32_t value) {
    return (value + 0x7fffu + ((value >> 16) & 1u)) >> 16;
}

static double larger(double one, double other) {
    return one > other ? one : other;
}

/* A block of any values. What is not finite, or becomes so, is wrong in the result. */
FOR_EACH_PROCESSOR
static struct block cast_block(const uint32_t *restrict values, uint16_t *restrict out, int count) {
    uint32_t bits = 0, changed = 0, underflowed = 0;
    int32_t magnitude = 0, error = 0;
    for (int i = 0; i < count; i++) {
        uint32_t value = values[i];
        uint32_t cast = rounded(value);
        int32_t size = (int32_t)(value & MAGNITUDE);
        int32_t lost = (int32_t)(as_bits(as_float(value) - as_float(cast << 16)) & MAGNITUDE);
        out[i] = (uint16_t)cast;
        bits |= value;
        magnitude = size > magnitude ? size : magnitude;
        error = lost > error ? lost : error;
        changed += (value & 0xffffu) != 0;
        underflowed += (size != 0) & ((cast & 0x7fffu) == 0);
    }
    return (struct block){bits, changed, underflowed, magnitude, error};
}

/* A block in which something is not finite, or becomes so. */
static void cast_carefully(
    const uint32_t *values, uint16_t *out, int count, struct facts *facts
) {
    for (int i = 0; i < count; i++) {
        uint32_t value = values[i], size = value & MAGNITUDE;
        if (size > INFINITE) {
            facts->nan++;
            out[i] = (uint16_t)(((value >> 16) & 0x8000u) | QUIET_NAN);
            continue;
        }
        uint32_t cast = rounded(value);
        out[i] = (uint16_t)cast;
        facts->bits |= value;
        if (size == INFINITE) {
            facts->infinite++;
            continue;
        }
        facts->changed += (value & 0xffffu) != 0;
        facts->underflowed += size != 0 && (cast & 0x7fffu) == 0;
        facts->magnitude = larger(facts->magnitude, as_float(size));
        if (size >= OVERFLOWING) {
            facts->overflowed++;
            facts->largest_overflow = larger(facts->largest_overflow, as_float(size));
        } else {
            float lost = as_float(value) - as_float(cast << 16);
            facts->largest_error =
                larger(facts->largest_error, as_float(as_bits(lost) & MAGNITUDE));
        }
    }
}

static void cast_tensor(
    const uint32_t *values, uint16_t *out, int64_t count, struct facts *facts
) {
    for (int64_t at = 0; at < count; at += BLOCK) {
        int size = (int)(count - at < BLOCK ? count - at : BLOCK);
        struct block block = cast_block(values + at, out + at, size);
        if ((uint32_t)block.magnitude >= OVERFLOWING) {
            cast_carefully(values + at, out + at, size, facts);
            continue;
        }
        facts->bits |= block.bits;
        facts->changed += block.changed;
        facts->underflowed += block.underflowed;
        facts->magnitude = larger(facts->magnitude, as_float((uint32_t)block.magnitude));
        facts->largest_error = larger(facts->largest_error, as_float((uint32_t)block.error));
    }
}

/* What the values of a tensor are: the OR of those that are no NaN, the bits of the largest
 * magnitude of a finite one, how many are not finite, and which of the narrow dtypes do not hold
 * every finite one. */
struct seen {
    uint64_t bits;
    int64_t magnitude;
    int64_t nan;
    int64_t infinite;
    uint64_t lost;
};

/* A dtype that may hold fewer numbers, as a power of two, its mantissa's bits and its largest. */
struct narrow {
    int least; /* from 2**least on, it keeps all bits of its mantissa */
    int mantissa;
    double largest;
    uint64_t loses; /* what to say where it does not hold a number */
};

static const struct narrow BF16 = {-126, 7, 0x1.fep127, 1};
static const struct narrow FP16 = {-14, 10, 65504, 2};

static int64_t larger_bits(int64_t one, int64_t other) {
    return one > other ? one : other;
}

#define WIDTH 32
#define FLOAT float
#define MANTISSA 23
#define BIAS 127
#include "look.h"
#define WIDTH 64
#define FLOAT double
#define MANTISSA 52
#define BIAS 1023
#include "look.h"
#define WIDTH 16 /* which is widened to 32 for what arithmetic it takes */
#include "look.h"

int recast_interface(void) {
    return INTERFACE;
}

/* Casts `count` values into `out`. Each of `tensors` tensors begins at one of `starts`, the first
 * at 0, and ends where the next begins; what is found of it is added to its `facts`. */
void recast_fp32_to_bf16(
    const uint32_t *values, uint16_t *out, int64_t count,
    const int64_t *starts, int64_t tensors, struct facts *facts
) {
    for (int64_t each = 0; each < tensors; each++) {
        int64_t begin = starts[each];
        int64_t end = each + 1 < tensors ? starts[each + 1] : count;
        cast_tensor(values + begin, out + begin, end - begin, &facts[each]);
    }
}
