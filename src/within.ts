/**
 * Settles as `work` does, or rejects after `ms` milliseconds with `late()`. What comes of `work` after that is of no
 * interest: it ends nothing and is reported nowhere.
 */
export async function within<T>(
  ms: number,
  work: Promise<T>,
  late: () => Error = () => new Error(`no end within ${Math.round(ms)} ms`),
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => reject(late()), Math.max(1, ms))
  try {
    return await Promise.race([work, promise])
  } finally {
    clearTimeout(timer)
    work.catch(() => {})
  }
}
