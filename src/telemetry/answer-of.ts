const sourceTimeoutMs = 1000

/** What `source` answers in time; undefined when it is absent, fails or is late. */
export async function answerOf<T>(source: () => T | Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, sourceTimeoutMs, undefined)
  })
  try {
    return await Promise.race([source(), late])
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}
