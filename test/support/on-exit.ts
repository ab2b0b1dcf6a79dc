const actions = new Set<() => void>()
process.once('exit', () => {
  for (const action of actions) action()
})

/**
 * Runs `action` when this process exits in order, unless the returned function is called before; after a SIGKILL nothing
 * runs. For what must not outlive the tests: one listener for all of them.
 */
export function onExit(action: () => void): () => void {
  actions.add(action)
  return () => actions.delete(action)
}
