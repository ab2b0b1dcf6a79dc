import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { expect, test } from 'vitest'
import { turnsEnd } from './turn.ts'

test('what comes in one turn goes on together, and what comes later in another one', async () => {
  const first = turnsEnd()
  expect(turnsEnd()).toBe(first)
  await first
  expect(turnsEnd()).not.toBe(first)
})

test('nothing goes on before all sockets that have something were read', async () => {
  const order: string[] = []
  const all = Promise.withResolvers<void>()
  const accepted = Promise.withResolvers<void>()
  let open = 0
  const server = createServer((socket) => {
    open += 1
    if (open === 3) accepted.resolve()
    socket.on('data', async () => {
      order.push('read')
      await turnsEnd()
      order.push('on')
      if (order.length === 6) all.resolve()
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no address')
  const sockets = [connect(address.port), connect(address.port), connect(address.port)]
  try {
    await Promise.all([accepted.promise, ...sockets.map((socket) => once(socket, 'connect'))])
    // All three are there before this process looks at any.
    for (const socket of sockets) socket.write('x')
    await all.promise
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
  }
  expect(order).toEqual(['read', 'read', 'read', 'on', 'on', 'on'])
})
