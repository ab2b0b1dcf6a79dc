/** What a service may state in the protocol that its backends speak: a setting that would do nothing is refused. */
import type { Protocol } from '../providers/provider.ts'
import { protocolName } from './endpoint-message.ts'
import { invalid } from './price-message.ts'
import type { EndpointRecord, ServiceRecord } from './records.ts'

type Checked = Pick<ServiceRecord, 'endpoints' | 'refusesStreamOptions' | 'jsonPointers'>

/** Throws INVALID_ARGUMENT naming the field that contradicts the service's protocol. */
export function checkProtocol({ endpoints, refusesStreamOptions, jsonPointers }: Checked): void {
  const protocol = endpoints[0]?.protocol ?? 'openai'
  for (const [index, endpoint] of endpoints.entries()) {
    const field = `service.endpoints[${index}]`
    if (endpoint.protocol !== protocol) {
      const others = 'register backends of another protocol as a service of their own'
      throw invalid(
        `${field}.protocol`,
        `must be that of the first endpoint, ${protocolName(protocol)}: ${others}`,
        'same',
      )
    }
    if (protocol === 'json' && endpoint.model !== '') {
      const remedy = 'plain JSON has no place for it, the URL and the payload say what is asked for'
      throw invalid(`${field}.model`, `must be empty for ${protocolName(protocol)}: ${remedy}`, 'protocol')
    }
    if (protocol === 'grpc') checkUpstream(endpoint, field)
  }
  if (refusesStreamOptions && !hasStreamOptions(protocol)) {
    const description = `must be false for ${protocolName(protocol)}, which knows no stream_options`
    throw invalid('service.refuses_stream_options', description, 'protocol')
  }
  if (Object.keys(jsonPointers).length > 0 && protocol !== 'json') {
    const description = `must be empty for ${protocolName(protocol)}, whose adapter knows where usage is: they are of ${protocolName('json')}`
    throw invalid('service.json_pointers', description, 'protocol')
  }
}

/** The path of a gRPC call is its method's, and the upstream has services of its own. */
function checkUpstream({ url, model }: EndpointRecord, field: string): void {
  const { pathname, search, hash } = new URL(url)
  if (pathname !== '/' || search !== '' || hash !== '') {
    throw invalid(
      `${field}.url`,
      `must have no path for ${protocolName('grpc')}, such as https://gate.example`,
      'protocol',
    )
  }
  if (model === '') {
    throw invalid(
      `${field}.model`,
      `must name the upstream's service for ${protocolName('grpc')}, by id or name`,
      'required',
    )
  }
}

function hasStreamOptions(protocol: Protocol): boolean {
  return protocol === 'openai' || protocol === 'azure_openai'
}
