/** One at random, in proportion to the weights; undefined only for an empty list. `random` is even from 0 (inclusive) to 1. */
export function draw<T extends { readonly weight: number }>(items: readonly T[], random: () => number): T | undefined {
  let left = random() * items.reduce((sum, { weight }) => sum + weight, 0)
  for (const item of items) {
    left -= item.weight
    if (left < 0) return item
  }
  return items.at(-1)
}
