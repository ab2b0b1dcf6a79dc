import { Registry } from '../../../gen/marketplace/v1/registry_pb.ts'
import type { CommandRow } from '../command-row.ts'

const services = Registry.method

/** What is called, and at what price. */
export const serviceRows: readonly CommandRow[] = [
  {
    name: 'services register',
    summary: 'add a service version; endpoints and prices come from --file',
    method: services.registerService,
    resource: 'service',
  },
  { name: 'services get', summary: 'show a service, by id or name', method: services.getService, positional: ['id'] },
  {
    name: 'services list',
    summary: 'list services',
    method: services.listServices,
    rows: { field: 'services', columns: ['id', 'name', 'version', 'status', 'description'] },
  },
  {
    name: 'services add-price',
    summary: 'add a version to the prices of a service, from --file',
    method: services.createPrice,
    resource: 'price',
    positional: ['service_id'],
  },
  {
    name: 'services prices',
    summary: 'list the prices of a service, the latest first',
    method: services.listPrices,
    positional: ['service_id'],
    rows: { field: 'prices', columns: ['version', 'currency', 'effectiveTime', 'perToken', 'perRequest'] },
  },
  {
    name: 'services update',
    summary: 'change a service version; what is not named stays',
    method: services.updateService,
    resource: 'service',
    positional: ['service.id'],
  },
  {
    name: 'services activate',
    summary: 'let a service version that waits for approval take calls',
    method: services.activateService,
    positional: ['id'],
  },
  {
    name: 'services deprecate',
    summary: 'warn callers that a service version is on its way out',
    method: services.deprecateService,
    positional: ['id'],
  },
  {
    name: 'services suspend',
    summary: 'let a service version take no calls for now',
    method: services.suspendService,
    positional: ['id'],
    warning: 'Calls of this service version are refused until it is resumed.',
  },
  {
    name: 'services resume',
    summary: 'let a suspended service version take calls again',
    method: services.resumeService,
    positional: ['id'],
  },
  {
    name: 'services retire',
    summary: 'end a service version for good',
    method: services.retireService,
    positional: ['id'],
    warning: 'Calls of this service version are refused from now on, and it cannot be brought back.',
  },
  {
    name: 'services split',
    summary: 'share the calls of a name among its versions, from --file',
    method: services.setTrafficSplit,
    resource: 'split',
    positional: ['split.name'],
  },
  {
    name: 'services show-split',
    summary: 'show how the calls of a name are shared',
    method: services.getTrafficSplit,
    positional: ['name'],
  },
  {
    name: 'services document',
    summary: 'attach OpenAPI or Protocol Buffers to a service version, from --file',
    method: services.setServiceDocument,
    resource: 'document',
    positional: ['document.service_id'],
  },
  {
    name: 'services show-document',
    summary: 'show the document of a service version',
    method: services.getServiceDocument,
    positional: ['service_id'],
  },
  {
    name: 'services endpoints',
    summary: 'show breaker, health and load of endpoints, as one replica knows them',
    method: services.listEndpointStates,
    rows: {
      field: 'endpointStates',
      columns: ['serviceName', 'serviceVersion', 'url', 'breaker', 'health', 'inFlight'],
    },
  },
  { name: 'services watch', summary: 'follow what becomes of services, a line a change', method: services.watch },
]
